"""Caches made by hand, with what a test wants to choose."""

import asyncio

from agent_service.core.breaker import BreakerState, CircuitBreaker
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy

Pair = tuple[FallbackCache, Outage]


def make_fallback(
    client: RedisClient,
    *,
    open_seconds: float = 0.05,
    limit: int = 10_000,
    namespace: str = "",
    clock: Clock = SYSTEM_CLOCK,
    lease_seconds: float = 10.0,
) -> Pair:
    """Return a fallback cache with a breaker that tries again soon, and its outage."""
    outage = Outage(client, CircuitBreaker(open_seconds, max_open_seconds=open_seconds), Journal(limit))
    redis: RedisCache = RedisCache(client, namespace=namespace, lease_seconds=lease_seconds)
    return FallbackCache(redis, InMemoryCache(namespace=namespace, clock=clock), outage), outage


async def cut(cache: FallbackCache, outage: Outage, proxy: TcpProxy) -> None:
    """Stall Redis, and let one read find out."""
    proxy.stall()
    assert await cache.get("found out by this read") is None
    assert outage.breaker.state is BreakerState.OPEN


async def recover(cache: FallbackCache, outage: Outage) -> None:
    """Let operations come until Redis serves again, as the traffic of a service would."""
    async with asyncio.timeout(60):
        while not outage.breaker.closed:
            await cache.exists("probe")
            await asyncio.sleep(0.01)
