"""The database that the settings name, one manager per event loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.current_reads import must_be_current
from agent_service.core.loop_registry import LoopRegistry
from agent_service.core.settings import Settings, get_settings
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.engine.replica import ReadReplica

__all__ = ["close_database", "connections_in_use", "get_database", "get_session", "open_database"]


@dataclass(frozen=True, slots=True)
class _Databases:
    primary: DatabaseManager
    replica: DatabaseManager | None
    reading: ReadReplica | None

    async def close(self) -> None:
        await self.primary.close()
        if self.replica is not None:
            await self.replica.close()


_databases: Final = LoopRegistry[_Databases]()


def open_database(
    settings: Settings, url: str | None = None, *, setting: str = "DATABASE_URL", **options: Any
) -> DatabaseManager:
    """Make a manager with the settings' DB_* and DATABASE_URL, or another URL. The caller closes it.

    :param setting: where that other URL comes from, for errors.
    :param options: of :class:`DatabaseManager`, in place of what the settings say.
    :raises ConfigurationError: the URL or an option cannot be used.
    """
    configured = {
        "pool_size": settings.db_pool_size,
        "max_overflow": settings.db_max_overflow,
        "pool_timeout": settings.db_pool_timeout,
        "pool_recycle": settings.db_pool_recycle,
        "statement_timeout": settings.db_statement_timeout,
        "pgbouncer": settings.db_pgbouncer,
        "row_security": settings.db_row_security,
        "echo": settings.db_echo_sql,
    }
    return DatabaseManager(
        settings.database_url.get_secret_value() if url is None else url,
        setting=setting,
        **{**configured, **options},
    )


def get_database() -> DatabaseManager:
    """Return the running loop's manager, made from the settings on first use; a forked process gets its own.

    :raises ConfigurationError: DATABASE_URL cannot be used.
    """
    return _databases.get(_open_databases).primary


def _open_databases() -> _Databases:
    settings = get_settings()
    primary = open_database(settings)
    replica = reading = None
    if settings.database_replica_url is not None:
        url = settings.database_replica_url.get_secret_value()
        replica = open_database(settings, url, setting="DATABASE_REPLICA_URL")
        reading = ReadReplica(replica, primary)
    return _Databases(primary, replica, reading)


@asynccontextmanager
async def get_session(*, readonly: bool = False) -> AsyncIterator[AsyncSession]:
    """Open a session of the configured database: committed when the block ends well, rolled back when it raises.

    ::

        async with get_session() as db:
            repo = SessionRepository(db)

    :param readonly: the block only reads, and what it reads may lag by what DATABASE_REPLICA_URL lags. Without a
        replica, or while it is away, the primary serves; so it does in a load of a cache, which would keep what lags.
        Writing in it is a DatabaseError, wherever it is served.
    :raises ConfigurationError: DATABASE_URL cannot be used.
    :raises DatabaseUnavailableError: the database cannot be reached.
    :raises DatabaseError: for any other failure of the database that leaves the block.
    """
    databases = _databases.get(_open_databases)
    if readonly and databases.reading is not None and not must_be_current():
        opened = databases.reading.session()
    else:
        opened = databases.primary.session(readonly=readonly)
    async with opened as db:
        yield db


def connections_in_use() -> int:
    """Return how many connections sessions of the running loop hold now; opens nothing."""
    found = _databases.find()
    return 0 if found is None else found.primary.get_metrics()["in_use"]


async def close_database() -> None:
    """Close the running loop's connections; the next :func:`get_session` opens new ones."""
    found = _databases.pop()
    if found is not None:
        await found.close()
