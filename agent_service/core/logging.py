"""The package's logger, and one call that configures it for a service."""

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from agent_service.core.errors import ConfigurationError

__all__ = ["logger", "setup_logging"]

logger = logging.getLogger("agent_service")
logger.addHandler(logging.NullHandler())

_DEV_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, whatever was passed as ``extra``, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key not in _STANDARD_FIELDS)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def setup_logging(
    *,
    level: str = "INFO",
    mode: str = "PROD",
    log_dir: str | Path | None = None,
    console_fmt: str | None = None,
    file_fmt: str | None = None,
) -> None:
    """Send the package's log records to the console, and to a file when asked. Calling it again replaces the handlers.

    :param level: a standard level name.
    :param mode: "PROD" writes JSON lines, "DEV" readable lines.
    :param log_dir: folder of a rotating ``agent_service.log`` (5 files of 10 MiB); None: console only.
    :param console_fmt: a :mod:`logging` format that replaces the mode's own on the console.
    :param file_fmt: the same for the file.
    :raises ConfigurationError: for an unknown level or mode.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"level: {level!r} is no logging level; use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if mode.upper() not in {"PROD", "DEV"}:
        raise ConfigurationError(f"mode: {mode!r} is unknown; use PROD or DEV")
    default: logging.Formatter = _JsonFormatter() if mode.upper() == "PROD" else logging.Formatter(_DEV_FORMAT)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(logging.Formatter(console_fmt) if console_fmt else default)
    if log_dir is not None:
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            RotatingFileHandler(folder / "agent_service.log", maxBytes=10 << 20, backupCount=5, encoding="utf-8")
        )
        handlers[1].setFormatter(logging.Formatter(file_fmt) if file_fmt else default)
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
