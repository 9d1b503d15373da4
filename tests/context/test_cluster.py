"""Redis Cluster: the contract, and a fence that shares the slot of its key, over three real nodes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.testing.context_contracts import HOSTILE_KEYS, ContextStoreContract


@pytest.fixture
async def store(cluster_url: str) -> AsyncIterator[RedisContextStore]:
    async with RedisContextStore(url=cluster_url, timeout=10) as store:
        yield store


class TestCluster(ContextStoreContract):
    expires = True
    examples = 2


async def test_a_cluster_is_a_fenced_cache(store: RedisContextStore):
    db = InMemoryContextStore()
    backed = CacheBackedContextStore(db=db, cache=store)
    keys = [key for key in HOSTILE_KEYS if "}" not in key] + [f"{{tag}}{n}" for n in range(50)]
    await backed.set_many({key: {"n": 1} for key in keys})

    assert await store.get_many(keys) == {key: {"n": 1} for key in keys}
    await asyncio.gather(*(backed.update("a", {f"field{n}": n}) for n in range(30)))
    assert len(await backed.get("a") or {}) == 30
    assert await backed.delete_many(keys) == len(keys)
    assert await store.get_many(keys) == {}
    assert backed.counters["cache_errors"] == 0


async def test_a_key_whose_fence_cannot_share_its_slot_is_served_by_the_database(store: RedisContextStore):
    backed = CacheBackedContextStore(db=InMemoryContextStore(), cache=store)
    await backed.set("a}b{c", {"n": 1})
    await backed.set("fine", {"n": 2})

    assert await backed.get("a}b{c") == {"n": 1}
    assert await store.get("fine") == {"n": 2}
