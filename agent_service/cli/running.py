"""Running a command's coroutine, and closing what it opened."""

import asyncio
from collections.abc import Awaitable, Callable

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["with_database", "with_redis"]


def with_database(work: Callable[[DatabaseManager], Awaitable[int]]) -> int:
    """Run work on the database of DATABASE_URL; return its exit code."""

    async def run() -> int:
        try:
            return await work(get_database())
        finally:
            await close_database()

    return asyncio.run(run())


def with_redis(work: Callable[[RedisManager], Awaitable[int]]) -> int:
    """Run work on the Redis of REDIS_URL; return its exit code.

    A cache serves without Redis, from a memory that nobody asked about; here the outage is told.

    :raises ConfigurationError: REDIS_URL is not set.
    :raises RedisUnavailableError: Redis does not answer.
    """

    async def run() -> int:
        try:
            manager = await get_redis_manager()
            if not manager.is_configured:
                raise ConfigurationError(
                    "REDIS_URL is not set, so caches and triggers are in the memory of each process, where no other "
                    "process sees them; set REDIS_URL to that of the service"
                )
            await manager.client.execute(b"PING")
            return await work(manager)
        finally:
            await close_cache()
            await close_redis()

    return asyncio.run(run())
