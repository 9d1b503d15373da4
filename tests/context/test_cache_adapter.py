"""Any ICache is a context store, and serves as the cache of one."""

from collections.abc import AsyncIterator

import pytest

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import CacheKeyError, ContextStoreError
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing import context_contracts
from agent_service.testing.context_contracts import ContextStoreContract

SHORTER = [key for key in context_contracts.HOSTILE_KEYS if len(key.encode()) < 8_192]


class CacheKeys(ContextStoreContract):
    """The contract, but for keys longer than a cache takes."""

    expires = True

    @pytest.fixture(autouse=True)
    def shorter_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(context_contracts, "HOSTILE_KEYS", SHORTER)


class TestMemoryCache(CacheKeys):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ContextStore]:
        cache: InMemoryCache = InMemoryCache()
        yield CacheContextStore(cache)
        await cache.aclose()


class TestRedisCache(CacheKeys):
    @pytest.fixture
    async def store(self, client: RedisClient) -> AsyncIterator[ContextStore]:
        cache: RedisCache = RedisCache(client)
        yield CacheContextStore(cache)
        await cache.aclose()


class TestBeforeAnotherStore(ContextStoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ContextStore]:
        cache: InMemoryCache = InMemoryCache(max_entries=3)
        yield CacheBackedContextStore(db=InMemoryContextStore(), cache=CacheContextStore(cache))
        await cache.aclose()


@pytest.fixture
def cache() -> InMemoryCache:
    return InMemoryCache(default_ttl=60)


async def test_a_key_longer_than_a_cache_takes_is_refused_and_does_no_harm_before_a_store(cache: InMemoryCache):
    adapted = CacheContextStore(cache)
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=adapted)

    with pytest.raises(ContextStoreError) as caught:
        await adapted.set("x" * 9_000, {})
    await store.set("x" * 9_000, {"a": 1})

    assert isinstance(caught.value.__cause__, CacheKeyError)
    assert await store.get("x" * 9_000) == {"a": 1}


async def test_an_update_keeps_the_time_that_is_left(cache: InMemoryCache):
    store = CacheContextStore(cache)
    await store.set("a", {}, ttl=5)
    await store.update("a", {"x": 1})
    await store.update("new", {"x": 1})

    left = await cache.ttl("=a")
    assert isinstance(left, float)
    assert left <= 5
    assert await cache.ttl("=new") == pytest.approx(60, abs=5)
