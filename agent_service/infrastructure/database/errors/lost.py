"""What is raised when a connection to the database dies, in use or while it is made."""

from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, StatementError

__all__ = ["FAILURES", "LOST_STATES", "is_lost"]

FAILURES: Final = (OSError, EOFError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises."""

LOST_STATES: Final = ("08", "57P", "25P03")
"""PostgreSQL: connection exceptions; shut down, starting up, idle for too long; idle in a transaction for too long."""

_LOST: Final = (OSError, EOFError, asyncpg.InternalClientError)
"""The network's and the driver's time limits; and the driver's internal errors when a connection ends in the middle
of something ("cannot switch to state")."""
_LOST_TEXTS: Final = ("connection is closed", "connection was closed", "another operation is in progress")


def is_lost(exc: BaseException) -> bool:
    """Whether an error of asyncpg, or of SQLAlchemy about it, means that its connection cannot be used again."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    original = exc.orig if isinstance(exc, StatementError) and exc.orig is not None else exc
    # SQLAlchemy's adapter raises classes of its own, chained to the driver's.
    return any(_of_driver(each) for each in (original, original.__cause__) if each is not None)


def _of_driver(error: BaseException) -> bool:
    if isinstance(error, _LOST) or str(getattr(error, "sqlstate", None)).startswith(LOST_STATES):
        return True
    if not isinstance(error, asyncpg.InterfaceError) or isinstance(error, ValueError):
        return False  # A ValueError is about an argument, and repeats it.
    return any(text in str(error) for text in _LOST_TEXTS)
