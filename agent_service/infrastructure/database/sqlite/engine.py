"""SQLite as a database that many tasks and processes write.

Left alone, a transaction that reads and then writes fails as soon as another one wrote in between, and waiting writers
poll. So here a transaction begins with its first write, by BEGIN IMMEDIATE: what was read before is not pinned to an
old snapshot (each statement sees what is committed, as PostgreSQL's READ COMMITTED does), and the lock is held from
before the write until the end. Within one process writers queue for it in order of arrival; between processes SQLite's
busy timeout does the waiting. WAL lets readers go on meanwhile.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.sqlite.busy import may_write
from agent_service.infrastructure.database.sqlite.connection import SqliteConnection
from agent_service.infrastructure.database.values.documents import dumps, loads

__all__ = [
    "BUSY_TIMEOUT",
    "MINIMUM_VERSION",
    "WriteLock",
    "create_functions",
    "in_memory",
    "is_free",
    "is_ours",
    "keep_clean",
    "keep_session_clean",
    "prepare_connection",
    "require_version",
    "write_turn",
]

MINIMUM_VERSION = (3, 35)
"""The first with RETURNING; the trigram tokenizer came one before."""

BUSY_TIMEOUT: Final = 30.0
"""Seconds a writer waits for the write lock."""

_HOLDS = "holds_write_lock"

_locks: "WeakKeyDictionary[Dialect, WriteLock]" = WeakKeyDictionary()
_kept_clean: "WeakSet[Dialect]" = WeakSet()


def in_memory(database: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a file's name, and what the URL says beside it, mean a database that lives in its one connection."""
    return database in {None, "", ":memory:", "file::memory:"} or options.get("mode") == "memory"


def is_ours(dialect: Dialect) -> bool:
    """Whether an engine of this dialect object has a :class:`WriteLock`."""
    return dialect in _locks


def require_version() -> None:
    """Refuse an SQLite library that lacks what we use.

    :raises DatabaseError: naming the version that is there, and the one that is needed.
    """
    if sqlite3.sqlite_version_info < MINIMUM_VERSION:
        raise DatabaseError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")


def is_free(engine: AsyncEngine) -> bool:
    """Whether nobody has the place of the engine's one writer, or waits for it."""
    lock = _locks.get(engine.dialect)
    return lock is None or lock.is_free


@asynccontextmanager
async def write_turn(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold the place of the engine's one writer, for a connection that is not of its pool.

    :raises DatabaseUnavailableError: another task holds it for too long.
    """
    lock = _locks.get(engine.dialect)
    if lock is None:  # An engine that others made: SQLite's own waiting has to do.
        yield
    else:
        async with lock.turn():
            yield


class WriteLock:
    """Turns an engine's connections into the ones described above, and hands its one writer's place around."""

    def __init__(self, engine: AsyncEngine, busy_timeout: float) -> None:
        require_version()
        self._lock = asyncio.Lock()
        self._busy_timeout = busy_timeout
        _locks[engine.dialect] = self
        event.listen(engine.sync_engine, "before_cursor_execute", self._before_statement)
        event.listen(engine.sync_engine, "handle_error", keep_connection)
        event.listen(engine.sync_engine.pool, "reset", self._reset)
        event.listen(engine.sync_engine.pool, "checkin", self._release)

    def acquire(self, connection: Connection) -> None:
        """Begin the connection's transaction as the one writer, unless it already is."""
        pooled = connection.connection
        driver: Any = pooled.dbapi_connection
        if driver.in_transaction or driver.undone:
            return
        if not pooled.record_info or not pooled.record_info.get(_HOLDS):
            driver.run_async(lambda _: self._wait())
            if pooled.record_info is not None:
                pooled.record_info[_HOLDS] = True
        try:
            driver.begin()
        except sqlite3.OperationalError as exc:
            raise DatabaseUnavailableError(
                f"no other process let go of the database's write lock within {self._busy_timeout:g} s "
                f"({reason_of(exc)})"
            ) from exc

    @property
    def is_free(self) -> bool:
        """Whether nobody has the writer's place, or waits for it."""
        return not self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the writer's place without a connection of the engine."""
        await self._wait()
        try:
            yield
        finally:
            self._lock.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._busy_timeout):
                await self._lock.acquire()
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"another task held the database's write lock for {self._busy_timeout:g} s; "
                "end its session, or do not open a second one to write within it"
            ) from exc

    def _before_statement(
        self, connection: Connection, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        if may_write(statement):
            if connection.get_execution_options().get("sqlite_readonly"):
                raise DatabaseError("cannot write in a read-only session; use get_session() without readonly=True")
            self.acquire(connection)

    def _reset(self, connection: Any, _entry: ConnectionPoolEntry, state: PoolResetState) -> None:
        # Nothing is awaited after a commit: a task that is cancelled then has nothing left to lose.
        if not state.terminate_only and state.asyncio_safe:
            connection.rollback()

    def _release(self, _connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        if entry.record_info is not None and entry.record_info.pop(_HOLDS, False):
            self._lock.release()


def keep_clean(engine: Engine) -> None:
    """Have an engine of the caller's own leave connections clean when a task is cancelled, from their next use on."""
    dialect = engine.dialect
    if dialect.driver == "aiosqlite" and dialect not in _locks and dialect not in _kept_clean:
        _kept_clean.add(dialect)
        event.listen(engine, "handle_error", keep_connection)
        event.listen(engine.pool, "checkout", _take_over)


def keep_session_clean(db: AsyncSession) -> None:
    """Do so for the engine of a session, if it has one."""
    if "database" not in db.info:  # Those of a manager's engine say so.
        with suppress(UnboundExecutionError):
            keep_clean(db.get_bind().engine)


def _take_over(connection: Any, entry: Any, proxy: Any) -> None:
    if not isinstance(connection, SqliteConnection):
        entry.dbapi_connection = proxy.dbapi_connection = SqliteConnection.over(connection)


def keep_connection(context: ExceptionContext) -> None:
    """Keep the connection of a statement that was cancelled: it is clean, and a database in memory lives in it."""
    if isinstance(context.original_exception, asyncio.CancelledError):
        context.is_disconnect = False


def prepare_connection(connection: SqliteConnection) -> None:
    """Return a new connection our functions and pragmas, in WAL mode."""
    create_functions(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    # Two processes that open a new file at once: SQLite refuses the second without waiting by itself.
    connection.run(lambda cursor: cursor.execute("PRAGMA journal_mode = WAL"))


def create_functions(connection: Any) -> None:
    """Register the functions that our statements call on a connection."""
    connection.create_function("json_merge", 2, _merge, deterministic=True)
    connection.create_function("lower_unicode", 1, _lower, deterministic=True)


def _merge(stored: str, patch: str) -> str:
    return dumps({**loads(stored), **loads(patch)})


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()
