"""Logging: silent until asked, JSON lines in production, replaced and not doubled when set up again."""

import json
import logging

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.core.logging import logger, setup_logging


@pytest.fixture(autouse=True)
def restored_logger():
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def test_production_writes_one_json_object_a_line(capsys):
    setup_logging(level="info")

    logger.info("cache %s opened", "users", extra={"namespace": "users"})
    logger.debug("not written")
    try:
        raise OSError("refused")
    except OSError:
        logger.exception("failed\nbadly")

    opened, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (opened["message"], opened["level"], opened["namespace"]) == ("cache users opened", "INFO", "users")
    assert opened["time"].endswith("+00:00")
    assert failed["message"] == "failed\nbadly"
    assert "OSError: refused" in failed["exception"]


def test_development_writes_readable_lines(capsys):
    setup_logging(mode="dev")

    logger.warning("careful")

    assert capsys.readouterr().err.endswith("WARNING agent_service: careful\n")


def test_formats_and_a_folder_may_be_given(capsys, tmp_path):
    setup_logging(log_dir=tmp_path / "deep" / "logs", console_fmt="C %(message)s", file_fmt="F %(message)s")

    logger.info("hello")

    assert capsys.readouterr().err == "C hello\n"
    assert (tmp_path / "deep" / "logs" / "agent_service.log").read_text() == "F hello\n"


def test_setting_up_again_replaces_the_handlers(capsys, tmp_path):
    setup_logging(log_dir=tmp_path)
    setup_logging(console_fmt="%(message)s")

    logger.info("once")

    assert capsys.readouterr().err == "once\n"
    assert (tmp_path / "agent_service.log").read_text() == ""


def test_records_of_child_loggers_arrive(capsys):
    setup_logging(console_fmt="%(name)s %(message)s")

    logging.getLogger("agent_service.cache").info("from a child")

    assert capsys.readouterr().err == "agent_service.cache from a child\n"


@pytest.mark.parametrize(
    ("options", "said"), [({"level": "LOUD"}, "level: 'LOUD'"), ({"mode": "TEST"}, "mode: 'TEST'")]
)
def test_an_unknown_level_or_mode_is_refused_and_changes_nothing(options, said):
    before = list(logger.handlers)

    with pytest.raises(ConfigurationError, match=said):
        setup_logging(**options)
    assert logger.handlers == before
