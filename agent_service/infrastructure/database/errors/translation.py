"""Translating errors of SQLAlchemy and of drivers into ours, with the original as ``__cause__``.

Messages repeat of the driver's text only what ``reasons.py`` allows, and never a value.
"""

from contextlib import AbstractContextManager

from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_service.core.errors import (
    AgentServiceError,
    DatabaseError,
    DatabaseUnavailableError,
    TransactionConflictError,
)
from agent_service.infrastructure.database.errors.lost import FAILURES, LOST_STATES, is_lost
from agent_service.infrastructure.database.errors.reasons import reason_of

__all__ = [
    "FAILED_STATEMENTS",
    "OVERTAKEN_STATES",
    "PGBOUNCER_REMEDY",
    "TOO_SLOW_STATE",
    "database_errors",
    "translate",
]

FAILED_STATEMENTS = (StatementError, PoolTimeoutError)
"""What the database does wrong; SQLAlchemy's other errors (no row where one was asked for) are about its use."""

PGBOUNCER_REMEDY = "this is a pgbouncer in transaction mode: set DB_PGBOUNCER=true"
"""The remedy where the URL leads to a pgbouncer and DB_PGBOUNCER is not set."""

_UNAVAILABLE_STATES = (*LOST_STATES, "53300")  # PostgreSQL: too many connections.
TOO_SLOW_STATE = "57014"
# A prepared statement exists already, is missing, or is another one: another connection prepared it.
_OTHERS_STATEMENT_STATES = ("42P05", "26000")
_OTHERS_STATEMENT_TEXT = "prepared statement"
_READ_ONLY_STATE = "25006"
_ABORTED_STATE = "25P02"
OVERTAKEN_STATES = ("40001", "40P01")  # a serialization failure, a deadlock
_UNAVAILABLE_TEXTS = ("database is locked", "database is busy", "unable to open database file", "connection closed")
_UNSENDABLE = (OverflowError, UnicodeError)
"""What Python raises for a value that the driver of SQLite cannot send."""
_TRANSLATED = (SQLAlchemyError, *FAILURES, *_UNSENDABLE)
_NO_SCHEMA_STATES = ("42P01", "42703")
_NO_SCHEMA_TEXTS = ("no such table", "no such column")


class database_errors(AbstractContextManager[None]):  # noqa: N801 - reads as a statement
    """Translates what the database raises while ``action`` ("append a message") is under way.

    A class, because a generator costs three times as much, on every path to the database.
    """

    __slots__ = ("action",)

    def __init__(self, action: str) -> None:
        self.action = action

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, _TRANSLATED):
            raise translate(exc, self.action) from exc


def translate(exc: Exception, action: str) -> AgentServiceError:
    """Return the error of ours for an error of SQLAlchemy or of a driver."""
    original = exc.orig if isinstance(exc, StatementError) else None
    if isinstance(original, AgentServiceError):
        return original
    if isinstance(exc, PoolTimeoutError):
        return DatabaseUnavailableError(
            f"could not {action}: no connection became free in time; raise DB_POOL_SIZE or hold sessions for less long"
        )
    state = str(getattr(original or exc, "sqlstate", None) or "")
    reason = reason_of(exc)
    if isinstance(original or exc, TimeoutError) or state == TOO_SLOW_STATE:
        told = reason if str(original or exc) else "it is silent"
        return DatabaseUnavailableError(
            f"could not {action}: the database gave no answer in time ({told}); "
            "DB_STATEMENT_TIMEOUT is the limit of a statement"
        )
    if state == _READ_ONLY_STATE:
        return DatabaseError(f"could not {action}: {reason}; to write, use get_session() without readonly=True")
    if state == _ABORTED_STATE:
        return DatabaseError(
            f"could not {action}: an earlier statement of this transaction failed and its error was caught, so nothing "
            "is stored; let the error leave the transaction, or begin_nested() before what may fail"
        )
    if state in _OTHERS_STATEMENT_STATES or (state == "08P01" and _OTHERS_STATEMENT_TEXT in reason):
        return DatabaseError(f"could not {action}: {reason}; {PGBOUNCER_REMEDY}")
    if state in OVERTAKEN_STATES:
        return TransactionConflictError(
            f"could not {action}: another transaction came between ({reason}); nothing was written: begin the "
            "transaction again, or use READ COMMITTED"
        )
    if _is_unavailable(exc, state, reason):
        return DatabaseUnavailableError(f"could not {action}: the database is unreachable or busy ({reason})")
    if state in _NO_SCHEMA_STATES or any(each in reason for each in _NO_SCHEMA_TEXTS):
        return DatabaseError(
            f"could not {action}: the schema is not up to date ({reason}); run: agent-service db upgrade"
        )
    return DatabaseError(f"could not {action}: {reason}")


def _is_unavailable(exc: Exception, state: str, reason: str) -> bool:
    return is_lost(exc) or state.startswith(_UNAVAILABLE_STATES) or any(each in reason for each in _UNAVAILABLE_TEXTS)
