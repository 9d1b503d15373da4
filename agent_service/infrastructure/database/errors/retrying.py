"""Which failed transactions may be repeated, and after which pause."""

from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_service.core.backoff import Backoff
from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.errors.lost import is_lost
from agent_service.infrastructure.database.errors.reasons import reason_of

__all__ = ["Failure", "classify", "pause_before"]

_PAUSES: Final = Backoff(0.01, 1.0)

# PostgreSQL: serialization failure, deadlock, lock not available, statement timeout.
_ROLLED_BACK_STATES: Final = ("40001", "40P01", "55P03", "57014")
_UNIQUE_VIOLATION: Final = "23505"
_BUSY_TEXTS: Final = ("database is locked", "database is busy", "database table is locked")


class Failure(Enum):
    """What a failure says about the transaction that it ended."""

    REFUSED = auto()
    """Nothing was written, and the same statement will be refused again."""
    ROLLED_BACK = auto()
    """Nothing was written, because of a concurrent transaction: any statement may be repeated."""
    OVERTAKEN = auto()
    """Nothing was written, because another transaction has just stored a row under the same unique key. If that is a
    message under the same client id, a repetition finds it."""
    NOT_REACHED = auto()
    """Nothing was sent, because there is no connection: any statement may be repeated."""
    UNKNOWN = auto()
    """The connection was lost before the answer: only idempotent statements may be repeated."""


def classify(exc: Exception) -> Failure:
    """Say what an error means that SQLAlchemy, a driver or this room raised during a transaction."""
    original = getattr(exc, "orig", None)
    state = str(getattr(original, "sqlstate", None) or "")
    if state in _ROLLED_BACK_STATES or _is_busy_sqlite(exc):
        return Failure.ROLLED_BACK
    if state == _UNIQUE_VIOLATION:
        return Failure.OVERTAKEN
    if isinstance(exc, DatabaseUnavailableError | PoolTimeoutError) or isinstance(original, DatabaseUnavailableError):
        return Failure.NOT_REACHED
    return Failure.UNKNOWN if is_lost(exc) else Failure.REFUSED


def _is_busy_sqlite(exc: Exception) -> bool:
    return isinstance(exc, SQLAlchemyError) and any(text in reason_of(exc) for text in _BUSY_TEXTS)


def pause_before(attempt: int) -> float:
    """Return the seconds to wait before the second (1), third (2), ... attempt."""
    return _PAUSES.pause(attempt - 1)
