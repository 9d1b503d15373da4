"""Which part of a driver's error may appear in a message or a log: nothing that can contain a value.

Drivers and servers repeat values: asyncpg the argument that it could not encode, PostgreSQL the text that is no number
and, in DETAIL, the row that breaks a constraint, SQLite a search term that it could not read. So a text is shown only
where its kind is known to name tables, constraints and the state of the server; of all others, their kind itself. The
exception that ours is chained to still has the whole text.
"""

import re
import sqlite3
from typing import Final

import asyncpg
from sqlalchemy.exc import InvalidRequestError, StatementError

__all__ = ["reason_of"]

_POSTGRES_WITHOUT_VALUES: Final = (
    "08", "0A", "22001", "23", "25", "26", "28", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX",
)  # fmt: skip
"""SQLSTATEs whose first line names objects, limits and states. Of data (22), only a text that is too long."""
_SQLITE_WITHOUT_VALUES: Final = (
    "UNIQUE constraint failed", "NOT NULL constraint failed", "CHECK constraint failed",
    "FOREIGN KEY constraint failed", "Error binding parameter", "database ", "attempt to write a readonly database",
    "disk I/O error", "unable to open database", "file is not a database", "no such ", "table ", "index ",
    "interrupted",
    "string or blob too big", "too many SQL variables", "datatype mismatch", "not authorized", "malformed JSON",
    "cannot ", "locking protocol", "integer overflow", "out of memory", "Cannot operate on a closed ",
    "connection closed", "a statement of this transaction was cancelled",
)  # fmt: skip
_ARGUMENT: Final = re.compile(r"invalid input for query argument (\$\d+)")
_BORDER: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def reason_of(exc: BaseException) -> str:
    """Say in one line why a driver, or SQLAlchemy, raised an error, without any value of the statement."""
    error = exc.orig if isinstance(exc, StatementError) and exc.orig is not None else exc
    # SQLAlchemy's adapter of asyncpg raises classes of its own, chained to the driver's.
    if isinstance(error.__cause__, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        error = error.__cause__
    line = str(error).strip().split("\n", 1)[0]
    argument = _ARGUMENT.search(line)
    if argument is not None:
        return f"a value cannot be sent as {argument[1]} of the statement"
    if isinstance(error, asyncpg.PostgresError):
        return _of_postgres(error, line)
    if isinstance(error, sqlite3.Error):
        return line if line.startswith(_SQLITE_WITHOUT_VALUES) else getattr(error, "sqlite_errorname", _kind(error))
    if type(error).__module__.startswith("sqlalchemy.dialects") or type(error) is InvalidRequestError:
        return line or _kind(error)  # of the connection, or of how SQLAlchemy is used
    if isinstance(error, (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return line or type(error).__name__
    return _kind(error)


def _of_postgres(error: asyncpg.PostgresError, line: str) -> str:
    state = str(error.sqlstate or "")
    if state.startswith(_POSTGRES_WITHOUT_VALUES) and line:
        return line
    return f"{_kind(error)}, SQLSTATE {state}" if state else _kind(error)


def _kind(error: BaseException) -> str:
    """Return the words of a class's name: "invalid text representation"."""
    return _BORDER.sub(" ", type(error).__name__.removesuffix("Error")).lower() or "an error"
