"""Each subsystem logs under its own name, a child of ``agent_service``."""

import ast
import logging
from pathlib import Path

import pytest

import agent_service
from agent_service import setup_logging
from agent_service.core.logging import logger as package_logger

PACKAGE = Path(agent_service.__file__).parent
SUBSYSTEMS = {
    "infrastructure/redis": "redis",
    "infrastructure/cache": "cache",
    "infrastructure/database": "database",
    "infrastructure/outbox": "outbox",
    "context": "context",
    "tenants": "tenants",
    "state": "state",
    "runtime": "runtime",
}


def loggers_in(folder: str) -> dict[str, set[str]]:
    """Return the names of the loggers that each module of a folder makes or imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="getLogger"), args=[ast.Constant(value=str(name))]) if (
                    name != "alembic"
                ):
                    found.setdefault(str(path.relative_to(PACKAGE)), set()).add(name)
                case ast.ImportFrom(module="agent_service.core.logging"):
                    found.setdefault(str(path.relative_to(PACKAGE)), set()).add("agent_service")
    return found


@pytest.mark.parametrize(("folder", "name"), SUBSYSTEMS.items(), ids=SUBSYSTEMS.values())
def test_a_subsystem_logs_under_its_own_name(folder: str, name: str) -> None:
    strange = {path: names for path, names in loggers_in(folder).items() if names != {f"agent_service.{name}"}}

    assert strange == {}


def test_the_loggers_are_found() -> None:
    assert sum(len(loggers_in(folder)) for folder in SUBSYSTEMS) > 20


def test_one_subsystem_can_be_silenced_and_the_others_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(package_logger.handlers), package_logger.level, package_logger.propagate
    quiet = logging.getLogger("agent_service.outbox")
    try:
        setup_logging(mode="DEV")
        quiet.setLevel(logging.ERROR)
        quiet.warning("not heard")
        logging.getLogger("agent_service.redis").warning("heard")
    finally:
        quiet.setLevel(logging.NOTSET)
        package_logger.handlers[:], level, package_logger.propagate = before
        package_logger.setLevel(level)

    told = capsys.readouterr().err
    assert "agent_service.redis: heard" in told
    assert "not heard" not in told
