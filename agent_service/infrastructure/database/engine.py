"""One database: its engine, its sessions, its schema."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError
from agent_service.infrastructure.database.documents import dumps, loads
from agent_service.infrastructure.database.errors import FAILED_STATEMENTS, database_errors, translate
from agent_service.infrastructure.database.sqlite import WriteLock, open_connection

if TYPE_CHECKING:
    from agent_service.infrastructure.database.migration import SchemaState

__all__ = ["DatabaseManager"]

T = TypeVar("T")

POSTGRES: Final = "postgresql+asyncpg"
SQLITE: Final = "sqlite+aiosqlite"
BUSY_TIMEOUT: Final = 30.0
"""Seconds a SQLite writer waits for the write lock."""
CONNECT_TIMEOUT: Final = 10.0
"""Seconds a new PostgreSQL connection may take."""


class DatabaseManager:
    """Owns the engine of one database, for the event loop it is used on and the process it was made in.

    Nothing is connected before the first use. An embedded (SQLite) database migrates itself then; PostgreSQL is
    migrated by :meth:`upgrade`, which is what ``agent-service db upgrade`` calls. Who makes a manager closes it.

    :param url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user:password@host:port/name``.
    :param pool_size: connections kept open.
    :param max_overflow: connections beyond those under load.
    :param pool_timeout: seconds to wait for a free connection.
    :param pool_recycle: seconds after which a connection is replaced; -1: never.
    :param echo: log every statement, without its parameters.
    :raises ConfigurationError: for a URL that cannot be used; it never shows a password.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        max_overflow: int = 10,
        pool_timeout: float = 30.0,
        pool_recycle: int = 1800,
        echo: bool = False,
    ) -> None:
        self._url = _parse(url)
        self.embedded = self._url.drivername == SQLITE
        pool: dict[str, Any] = {
            "poolclass": AsyncAdaptedQueuePool,
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "pool_timeout": pool_timeout,
        }
        if self.embedded:
            options = _sqlite_options(self._url) | {"connect_args": {"isolation_level": None, "timeout": BUSY_TIMEOUT}}
        else:
            options = {"pool_recycle": pool_recycle, "connect_args": {"timeout": CONNECT_TIMEOUT}}
        self.engine: AsyncEngine = create_async_engine(
            self._url,
            echo=echo,
            hide_parameters=True,
            json_serializer=dumps,
            json_deserializer=loads,
            **pool | options,
        )
        event.listen(self.engine.sync_engine, "do_connect", self._connect)
        if self.embedded:
            WriteLock(self.engine, BUSY_TIMEOUT)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._preparing = asyncio.Lock()
        self._prepared = not self.embedded
        self.pid = os.getpid()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give a session: committed when the block ends well, rolled back when it raises.

        Committing within the block is allowed; what follows is a new transaction.

        :raises DatabaseUnavailableError: the database cannot be reached.
        :raises DatabaseError: for any other failure of the database that leaves the block.
        """
        await self.prepare()
        db = self._sessions()
        try:
            yield db
            with database_errors("commit"):
                await db.commit()
        except FAILED_STATEMENTS as exc:
            raise translate(exc, "finish the session") from exc
        finally:
            await _release(db)

    async def prepare(self) -> None:
        """Migrate an embedded database unless it is up to date; any number of tasks and processes may race here."""
        if self._prepared:
            return
        async with self._preparing:
            if self._prepared:
                return
            if not await self._migrating("read the schema's revision", _is_current):
                await self.upgrade()
            self._prepared = True

    async def upgrade(self, revision: str = "head") -> None:
        """Move the schema forward to a revision, whole or not at all."""
        from agent_service.infrastructure.database.migration import upgrade  # noqa: PLC0415 - Alembic loads when needed

        await self._migrating("upgrade the schema", lambda connection: upgrade(connection, revision))

    async def downgrade(self, revision: str) -> None:
        """Move the schema back to a revision ("base": to nothing). What its tables hold goes with it."""
        from agent_service.infrastructure.database.migration import downgrade  # noqa: PLC0415

        await self._migrating("downgrade the schema", lambda connection: downgrade(connection, revision))

    async def check(self) -> "SchemaState":
        """Compare the schema with the revisions and the models; nothing is changed."""
        from agent_service.infrastructure.database.migration import check  # noqa: PLC0415

        return await self._migrating("check the schema", check)

    async def _migrating(self, action: str, work: Callable[[Connection], T]) -> T:
        with database_errors(action):
            async with self.engine.begin() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        """Close every connection. Sessions that are still open keep theirs until they end."""
        await self.engine.dispose()

    def _connect(self, dialect: Any, _entry: Any, arguments: Any, options: Any) -> Any:
        failures = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, dialect.loaded_dbapi.Error)
        try:
            if self.embedded:
                return open_connection(dialect, *arguments, **options)
            return dialect.connect(*arguments, **options)
        except failures as exc:
            reason = str(exc).split("\n", 1)[0] or type(exc).__name__
            raise DatabaseUnavailableError(f"cannot connect to {self} ({reason}); check DATABASE_URL") from exc
        except TypeError as exc:
            raise ConfigurationError(f"DATABASE_URL: {self} has an option its driver does not know ({exc})") from exc

    def __str__(self) -> str:
        host = f"{self._url.host or ''}{f':{self._url.port}' if self._url.port else ''}"
        return f"{self._url.drivername}://{host}/{self._url.database or ''}"


async def _release(db: AsyncSession) -> None:
    if db.in_transaction():
        # Rolls back and gives the connection back, which has to happen even if this task is cancelled meanwhile.
        await asyncio.shield(asyncio.create_task(db.close()))
    else:
        db.sync_session.close()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # No chaining: the original repeats the URL, which may hold a password.
        raise ConfigurationError("DATABASE_URL is no URL; it looks like postgresql+asyncpg://user@host/name") from None
    if parsed.drivername not in {POSTGRES, SQLITE}:
        raise ConfigurationError(f"DATABASE_URL begins with {parsed.drivername}://; use {POSTGRES}:// or {SQLITE}://")
    return parsed


def _sqlite_options(url: URL) -> dict[str, Any]:
    if url.database in {None, "", ":memory:"}:
        # A database in memory lives in its one connection; sessions take turns.
        return {"pool_size": 1, "max_overflow": 0}
    return {}


def _is_current(connection: Connection) -> bool:
    from agent_service.infrastructure.database.migration import is_current  # noqa: PLC0415

    return is_current(connection)
