"""The pool of an engine."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, Full

__all__ = ["ConnectionPool"]


class ConnectionPool(AsyncAdaptedQueuePool):
    """Serves those who wait in order, and closes connections that it has no room for in a way that may be cancelled.

    SQLAlchemy's pool puts a connection that comes back into a queue and wakes one of those who wait. Whoever asks
    before that task runs takes the connection, and the task waits again, behind all others. Here the connection is
    handed to the one who waits longest, and so is the place of a connection that could not be made. So while anybody
    waits, nothing is free, and nobody can overtake.

    A task that gives back a connection that the pool has no room for closes it, and may be cancelled meanwhile.
    SQLAlchemy then logs an error with a traceback, and leaves the connection to the garbage collector, unless it was
    told to terminate it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry | None]] = deque()
        """What each gets: a connection, or None for the right to make one."""

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self._pool.get(block=False)
        except Empty:
            pass
        entry = None if self._inc_overflow() else await_only(self._next())
        if entry is not None:
            return entry
        try:
            return self._create_connection()
        except BaseException:
            self._release_place()
            raise

    async def _next(self) -> ConnectionPoolEntry | None:
        """Wait for a connection, or None for the right to make one."""
        loop = asyncio.get_running_loop()
        promised: asyncio.Future[ConnectionPoolEntry | None] = loop.create_future()
        self._waiting.append(promised)
        timer = loop.call_later(self._timeout, _give_up, promised)
        try:
            return await promised
        except BaseException as exc:
            with suppress(ValueError):
                self._waiting.remove(promised)
            if isinstance(exc, TimeoutError):
                text = f"all {self.checkedout()} connections were in use for {self._timeout:g} s"
                raise PoolTimeoutError(text, code="3o7r") from None
            # A task may be cancelled after it was given something, before it could run.
            if promised.done() and not promised.cancelled() and promised.exception() is None:
                self._pass_on(promised.result())
            raise
        finally:
            timer.cancel()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self._hand_over(record):
            return
        try:
            self._pool.put(record, block=False)
        except Full:
            try:
                record.close()
            finally:
                self._release_place()

    def _pass_on(self, entry: ConnectionPoolEntry | None) -> None:
        if entry is None:
            self._release_place()
        else:
            self._do_return_conn(entry)

    def _release_place(self) -> None:
        """Let another connection be made."""
        if not self._hand_over(None):
            self._dec_overflow()

    def _hand_over(self, entry: ConnectionPoolEntry | None) -> bool:
        """Give something to the one who waits longest; False: nobody waits."""
        while self._waiting:
            promised = self._waiting.popleft()
            if not promised.done():
                promised.set_result(entry)
                return True
        return False

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:  # noqa: ARG002 - always
        super()._close_connection(connection, terminate=True)


def _give_up(promised: "asyncio.Future[ConnectionPoolEntry | None]") -> None:
    if not promised.done():
        promised.set_exception(TimeoutError())
