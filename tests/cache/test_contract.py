"""Every cache keeps the one contract."""

from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from agent_service.testing.contracts import CacheContract
from tests.servers.ports import free_port
from tests.support.caches import make_fallback


class TestMemory(CacheContract):
    levels = frozenset({"memory"})

    @pytest.fixture
    async def cache(self) -> AsyncIterator[ICache]:
        self.clock = FakeClock()
        cache: InMemoryCache = InMemoryCache(clock=self.clock)
        yield cache
        await cache.aclose()

    @pytest.fixture
    async def again(self, cache: InMemoryCache) -> AsyncIterator[ICache]:
        again: InMemoryCache = InMemoryCache(store=cache.backend.table, leases=cache.leases)
        yield again
        await again.aclose()

    @pytest.fixture
    async def neighbour(self) -> ICache:
        return InMemoryCache(namespace="neighbour")

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
    levels = frozenset({"redis"})
    prefix = "agent_service"
    namespace = ""

    def open(self, client: RedisClient, namespace: str) -> RedisCache:
        return RedisCache(client, prefix=self.prefix, namespace=namespace)

    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache = self.open(client, self.namespace)
        yield cache
        await cache.aclose()

    @pytest.fixture
    async def again(self, client: RedisClient) -> AsyncIterator[ICache]:
        again = self.open(client, self.namespace)
        yield again
        await again.aclose()

    @pytest.fixture
    async def neighbour(self, client: RedisClient) -> ICache:
        return self.open(client, "neighbour")


class TestRedisCompressedUnderAnAwkwardName(TestRedis):
    prefix = "a:[b]*"
    namespace = "x:y?%{z}"

    def open(self, client: RedisClient, namespace: str) -> RedisCache:
        return RedisCache(client, prefix=self.prefix, namespace=namespace, compress_above=10)


class TestFallbackWithRedisUp(CacheContract):
    levels = frozenset({"redis"})

    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache, outage = make_fallback(client)
        yield cache
        await cache.aclose()
        assert outage.breaker.closed, "Redis was up all the time"

    @pytest.fixture
    async def again(self, client: RedisClient) -> AsyncIterator[ICache]:
        again, _ = make_fallback(client)
        yield again
        await again.aclose()

    @pytest.fixture
    async def neighbour(self, client: RedisClient) -> ICache:
        return make_fallback(client, namespace="neighbour")[0]


class TestFallbackWithRedisDown(CacheContract):
    levels = frozenset({"memory"})

    @pytest.fixture
    async def client(self) -> AsyncIterator[RedisClient]:
        client = RedisClient(f"redis://127.0.0.1:{free_port()}/0")
        yield client
        await client.aclose()

    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        cache, outage = make_fallback(client, open_seconds=0.01)
        yield cache
        await cache.aclose()
        await outage.aclose()

    @pytest.fixture
    async def neighbour(self, client: RedisClient) -> AsyncIterator[FallbackCache]:
        neighbour, outage = make_fallback(client, open_seconds=0.01, namespace="neighbour")
        yield neighbour
        await neighbour.aclose()
        await outage.aclose()
