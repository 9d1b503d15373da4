"""The database that the settings name, one manager per event loop."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.engine import DatabaseManager

__all__ = ["close_database", "get_database", "get_session"]

_managers: WeakKeyDictionary[asyncio.AbstractEventLoop, DatabaseManager] = WeakKeyDictionary()


def get_database() -> DatabaseManager:
    """Give the running loop's manager, made from the settings on first use; a forked process gets its own.

    :raises ConfigurationError: DATABASE_URL cannot be used.
    """
    loop = asyncio.get_running_loop()
    manager = _managers.get(loop)
    if manager is None or manager.pid != os.getpid():
        settings = get_settings()
        manager = _managers[loop] = DatabaseManager(
            settings.database_url.get_secret_value(),
            pool_size=settings.db_pool_size,
            max_overflow=settings.db_max_overflow,
            pool_timeout=settings.db_pool_timeout,
            pool_recycle=settings.db_pool_recycle,
            echo=settings.db_echo_sql,
        )
    return manager


@asynccontextmanager
async def get_session() -> AsyncIterator[AsyncSession]:
    """Give a session of the configured database: committed when the block ends well, rolled back when it raises.

    ::

        async with get_session() as db:
            repo = SessionRepository(db)

    :raises ConfigurationError: DATABASE_URL cannot be used.
    :raises DatabaseUnavailableError: the database cannot be reached.
    :raises DatabaseError: for any other failure of the database that leaves the block.
    """
    async with get_database().session() as db:
        yield db


async def close_database() -> None:
    """Close the running loop's connections; the next :func:`get_session` opens new ones."""
    manager = _managers.pop(asyncio.get_running_loop(), None)
    if manager is not None:
        await manager.close()
