"""The pool of an engine."""

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool

__all__ = ["ConnectionPool"]


class ConnectionPool(AsyncAdaptedQueuePool):
    """Closes connections that the pool has no room for in a way that may be cancelled.

    A task that gives such a connection back closes it, and may be cancelled meanwhile. SQLAlchemy then logs an error
    with a traceback, and leaves the connection to the garbage collector, unless it was told to terminate it.
    """

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:  # noqa: ARG002 - always
        super()._close_connection(connection, terminate=True)
