"""The pool of an engine."""

from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full

from agent_service.core.waiters import Waiters

__all__ = ["ConnectionPool"]


class ConnectionPool(AsyncAdaptedQueuePool):
    """Serves those who wait in order, and closes connections that it has no room for in a way that may be cancelled.

    SQLAlchemy's pool wakes a task that waits, and whoever asks before that task runs takes the connection. Here the
    connection is handed to the task itself, and so is the place of a connection that could not be made.

    A task that gives back a connection that the pool has no room for closes it, and may be cancelled meanwhile.
    SQLAlchemy then logs an error with a traceback, and leaves the connection to the garbage collector, unless it was
    told to terminate it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiters = Waiters[ConnectionPoolEntry | None]()
        """Each gets a connection, or None for the right to make one."""

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self._pool.get(block=False)
        except Empty:
            pass
        entry = None if self._inc_overflow() else self._next()
        if entry is not None:
            return entry
        try:
            return self._create_connection()
        except BaseException:
            self._give(None)
            raise

    def _next(self) -> ConnectionPoolEntry | None:
        """Wait for a connection, or None for the right to make one."""
        left: list[ConnectionPoolEntry | None] = []
        try:
            return await_only(self._waiters.wait(self._timeout, left.append))
        except TimeoutError:
            text = f"all {self.checkedout()} connections were in use for {self._timeout:g} s"
            raise PoolTimeoutError(text, code="3o7r") from None
        except BaseException:
            for each in left:  # Here and not in the task's own coroutine, where a connection cannot be closed.
                self._give(each)
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._give(record)

    def _give(self, entry: ConnectionPoolEntry | None) -> None:
        """Give a connection, or the right to make one, to the task that has waited longest; without one keep it."""
        if self._waiters.give(entry):
            return
        if entry is None:
            self._dec_overflow()
            return
        try:
            self._pool.put(entry, block=False)
        except Full:
            try:
                entry.close()
            finally:
                self._give(None)

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:  # noqa: ARG002 - always
        super()._close_connection(connection, terminate=True)
