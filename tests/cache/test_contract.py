"""Every cache keeps the one contract."""

from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.memory import InMemoryCache
from agent_service.infrastructure.cache.redis import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from agent_service.testing.contracts import CacheContract
from tests.cache.conftest import make_fallback
from tests.servers.redis import free_port


class TestMemory(CacheContract):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[ICache]:
        self.clock = FakeClock()
        cache: InMemoryCache = InMemoryCache(clock=self.clock)
        yield cache
        await cache.aclose()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestMemoryBoundedInBytes(TestMemory):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[ICache]:
        self.clock = FakeClock()
        cache: InMemoryCache = InMemoryCache(max_bytes=1 << 20, clock=self.clock, namespace="a:b%")
        yield cache
        await cache.aclose()


class TestRedis(CacheContract):
    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache: RedisCache = RedisCache(client)
        yield cache
        await cache.aclose()


class TestRedisCompressedUnderAnAwkwardName(CacheContract):
    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache: RedisCache = RedisCache(client, prefix="a:[b]*", namespace="x:y?%{z}", compress_above=10)
        yield cache
        await cache.aclose()


class TestFallbackWithRedisUp(CacheContract):
    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache, outage = make_fallback(client)
        yield cache
        await cache.aclose()
        assert outage.breaker.closed, "Redis was up all the time"


class TestFallbackWithRedisDown(CacheContract):
    @pytest.fixture
    async def cache(self) -> AsyncIterator[ICache]:
        client = RedisClient(f"redis://127.0.0.1:{free_port()}/0")
        cache, outage = make_fallback(client, open_seconds=0.01)
        yield cache
        await cache.aclose()
        await outage.aclose()
        await client.aclose()
