"""The configured database and cache over real servers, closed after each test with nothing left behind."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy
from tests.support.outbox import NAMESPACE, configure
from tests.support.waiting import until


@pytest.fixture
async def house(database_url: str, redis_proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TcpProxy]:
    """A database of each engine in turn, and Redis behind a proxy; gives the proxy."""
    configure(
        monkeypatch,
        database_url=database_url,
        redis_url=redis_proxy.url,
        redis_timeout="0.3",
        cache_breaker_open_seconds="0.05",
    )
    await get_database().prepare()
    yield redis_proxy
    redis_proxy.resume()
    await close_cache()
    assert get_database().get_metrics()["in_use"] == 0
    await close_database()

    async def nothing_runs() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name() == "outbox"]

    await until(nothing_runs)


@pytest.fixture
async def others(redis_url: str) -> AsyncIterator[RedisCache[object]]:
    """The cache as every other process sees it: the entries in Redis, by another connection."""
    client = RedisClient(redis_url, timeout=10)
    yield RedisCache(client, namespace=NAMESPACE)
    await client.aclose()
