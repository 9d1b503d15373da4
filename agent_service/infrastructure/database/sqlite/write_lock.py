"""The write lock of SQLite, for a database that many tasks and processes write.

By default, a transaction that reads and then writes fails as soon as another one wrote in between, and waiting writers
poll. So here a transaction begins with its first write, by BEGIN IMMEDIATE: what was read before is not pinned to an
old snapshot (each statement sees what is committed, as PostgreSQL's READ COMMITTED does), and the lock is held from
before the write until the end. Within one process writers queue for it in order of arrival; between processes SQLite's
busy timeout does the waiting. WAL lets readers go on meanwhile.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.core.waiters import Waiters
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.sqlite.busy import may_write
from agent_service.infrastructure.database.sqlite.cancelled import keep_connections
from agent_service.infrastructure.database.sqlite.connection import LockNotTakenError, SqliteConnection
from agent_service.infrastructure.database.sqlite.functions import require_version

__all__ = ["BUSY_TIMEOUT", "WriteLock", "is_free", "is_ours", "visit_as_writer", "write_turn"]

BUSY_TIMEOUT: Final = 30.0
"""Seconds a writer waits for the write lock."""

T = TypeVar("T")

_HOLDS = "holds_write_lock"

_locks: "WeakKeyDictionary[Dialect, WriteLock]" = WeakKeyDictionary()


def is_ours(dialect: Dialect) -> bool:
    """Whether an engine of this dialect object has a :class:`WriteLock`."""
    return dialect in _locks


def is_free(engine: AsyncEngine) -> bool:
    """Whether nobody holds the engine's write lock or waits for it."""
    lock = _locks.get(engine.dialect)
    return lock is None or lock.is_free


def visit_as_writer(connection: Connection, work: Callable[[sqlite3.Cursor], T]) -> T:
    """Do several statements in one visit to the connection's thread, which begins a transaction that writes, if needed.

    :param connection: of an engine that has a :class:`WriteLock`.
    :raises DatabaseError: the connection is for reading only.
    :raises DatabaseUnavailableError: another task or process holds the lock for too long.
    :raises sqlite3.Error: a statement failed.
    """
    return _locks[connection.dialect].visit(connection, work)


@asynccontextmanager
async def write_turn(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold the engine's write lock, for a connection that is not of its pool.

    :raises DatabaseUnavailableError: another task holds it for too long.
    """
    lock = _locks.get(engine.dialect)
    if lock is None:  # An engine that others made: SQLite's own waiting has to do.
        yield
    else:
        async with lock.turn():
            yield


class WriteLock:
    """Makes an engine's transactions begin with their first write, one writer at a time."""

    def __init__(self, engine: AsyncEngine, busy_timeout: float) -> None:
        require_version()
        self._held = False
        self._waiters = Waiters[None]()
        self._busy_timeout = busy_timeout
        _locks[engine.dialect] = self
        event.listen(engine.sync_engine, "before_cursor_execute", self._before_statement)
        keep_connections(engine.sync_engine)
        event.listen(engine.sync_engine.pool, "reset", self._reset)
        event.listen(engine.sync_engine.pool, "checkin", self._release)

    def acquire(self, connection: Connection) -> None:
        """Begin the connection's transaction as the one writer, unless it already is."""
        driver = self._queue(connection)
        if driver.in_transaction or driver.undone:
            return
        try:
            driver.begin()
        except sqlite3.OperationalError as exc:
            raise self._not_taken(exc) from exc

    def visit(self, connection: Connection, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Do what :meth:`acquire` does and some work, in one visit."""
        driver = self._queue(connection)
        try:
            return driver.visit_as_writer(work)
        except LockNotTakenError as exc:
            raise self._not_taken(exc) from exc

    def _queue(self, connection: Connection) -> SqliteConnection:
        """Wait until no other task of this process writes, unless the connection has begun to."""
        if connection.get_execution_options().get("sqlite_readonly"):
            raise DatabaseError("cannot write in a read-only session; use get_session() without readonly=True")
        pooled = connection.connection
        driver = cast("SqliteConnection", pooled.dbapi_connection)
        if driver.in_transaction or driver.undone or (pooled.record_info and pooled.record_info.get(_HOLDS)):
            return driver
        if not self._take():
            driver.run_async(lambda _: self._wait())
        if pooled.record_info is not None:
            pooled.record_info[_HOLDS] = True
        return driver

    def _not_taken(self, exc: sqlite3.OperationalError) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"no other process let go of the database's write lock within {self._busy_timeout:g} s ({reason_of(exc)})"
        )

    @property
    def is_free(self) -> bool:
        """Whether nobody holds the lock or waits for it."""
        return not self._held

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lock without a connection of the engine."""
        if not self._take():
            await self._wait()
        try:
            yield
        finally:
            self._let_go()

    def _take(self) -> bool:
        """Hold the lock if nobody does."""
        taken = not self._held
        self._held = True
        return taken

    def _let_go(self, _given: None = None) -> None:
        self._held = self._waiters.give(None)

    async def _wait(self) -> None:
        """Hold the lock as soon as all who came before have let go of it."""
        try:
            await self._waiters.wait(self._busy_timeout, self._let_go)
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"another task held the database's write lock for {self._busy_timeout:g} s; "
                "end its session, or do not open a second one to write within it"
            ) from exc

    def _before_statement(
        self, connection: Connection, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        if may_write(statement):
            self.acquire(connection)

    def _reset(self, connection: Any, _entry: ConnectionPoolEntry, state: PoolResetState) -> None:
        # Nothing is awaited after a commit: a task that is cancelled then has nothing left to lose.
        if not state.terminate_only and state.asyncio_safe:
            connection.rollback()

    def _release(self, _connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        if entry.record_info is not None and entry.record_info.pop(_HOLDS, False):
            self._let_go()
