"""Caches over real servers, each closed after its test, with nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from agent_service.core.breaker import CircuitBreaker
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.cache.fallback import FallbackCache
from agent_service.infrastructure.cache.journal import Journal
from agent_service.infrastructure.cache.memory import InMemoryCache
from agent_service.infrastructure.cache.outage import Outage
from agent_service.infrastructure.cache.redis import RedisCache
from agent_service.infrastructure.redis.client import RedisClient


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """After each test no task of ours runs."""
    yield
    await close_cache()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(20):
        others = {task for task in others if not task.done()}
        if not others:
            break
        await asyncio.sleep(0.01)
    assert not others, f"tasks left running: {others}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of the shared, emptied Redis."""
    client = RedisClient(redis_url, timeout=5)
    yield client
    await client.aclose()


def make_fallback(
    client: RedisClient,
    *,
    open_seconds: float = 0.05,
    limit: int = 10_000,
    namespace: str = "",
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[FallbackCache, Outage]:
    """A fallback cache of its own, with a breaker that tries again soon."""
    outage = Outage(client, CircuitBreaker(open_seconds, max_open_seconds=open_seconds), Journal(limit))
    redis: RedisCache = RedisCache(client, namespace=namespace)
    return FallbackCache(redis, InMemoryCache(namespace=namespace, clock=clock), outage), outage


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
