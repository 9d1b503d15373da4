"""Every public operation of the package that reaches Redis, once; what each returns is checked."""

import asyncio
from typing import Any

from agent_service import NEVER, cached, get_cache, get_redis_manager
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.infrastructure.limits import Rate, RateLimiter
from agent_service.infrastructure.redis import ops
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore
from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    RedisTrigger,
    RedisUser,
    handlers,
)
from agent_service.tenants.runner import TriggerRunner, on_trigger


async def use_caches() -> None:
    """Caches with and without copies in memory, counters, tags, locks, leases."""
    for l1 in (False, True):
        cache = await get_cache("users", l1=l1)
        await _settled()
        assert await cache.set("a", 1, tags=["t"])
        assert await cache.get("a") == 1
        assert await cache.set_many({"b": 2, "c": 3}, ttl=NEVER)
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}
        assert await cache.exists("a")
        assert 0 < float(await cache.ttl("a") or 0) <= 300  # type: ignore[arg-type]
        assert await cache.expire("b", 60)
        assert [await cache.increment("n"), await cache.increment("n")] == [1, 2]
        assert sorted([key async for key in cache.scan("*")]) == ["a", "b", "c", "n"]
        assert await cache.get_or_load("d", _four, lock="distributed", stale_for=10) == 4
        assert await cache.get_or_load_many(["d", "e"], _many) == {"d": 4, "e": 5}
        await cache.invalidate_tags(["t"])
        assert await cache.get("a") is None
        assert await cache.delete("d")
        assert await cache.delete_pattern("[be]*") == 2
        assert await cache.delete_many(["c", "x"]) == 1
        await cache.clear()
        assert [key async for key in cache.scan("*")] == []
    assert [await _decorated(), await _decorated()] == [4, 4]
    await (await get_cache("users")).delete_pattern("*")


async def use_manager() -> None:
    """Keys by name and by pattern, and health."""
    manager = await get_redis_manager()
    assert await manager.mset({"one": "1", "two": "2"})
    assert await manager.mget(["one", "two", "three"]) == ["1", "2", None]
    assert sorted(await manager.scan_keys("[ot]*")) == ["one", "two"]
    assert await manager.delete_by_pattern("[ot]*") == 2
    health = await manager.health_check()
    assert health["ok"], health
    assert health["limits"] == []


async def use_limits() -> None:
    """Rate limits that all processes share."""
    limiter = RateLimiter("calls", "1/hour")
    decisions = [await limiter.take("ann") for _ in range(2)]
    assert [(each.taken, each.level) for each in decisions] == [(True, "redis"), (False, "redis")]
    short = RateLimiter("short", Rate(5, 0.001), "9/hour")
    assert (await short.take("ann")).taken
    while (await short.take("ann", 0)).remaining[0].quota < 5:  # until what is over is taken out
        await asyncio.sleep(0.001)


async def use_tenants() -> None:
    """Records, listings, indexes, batches, triggers."""
    user = RedisUser("acme", "ann", indexes=("email",))
    assert await user.upsert({"email": "a@b", "n": 1, "list": []})
    assert await user.increment_field("n") == 2
    assert await user.append_to_list("list", 1)
    assert await user.compare_and_set("n", 2, 3)
    assert await user.get() == {"email": "a@b", "n": 3, "list": [1]}
    assert await user.find_by_field("email", "a@b") == await user.find_by_field("n", 3)
    assert await user.renew_ttl()
    assert await user.delete_field("n")
    table = RedisTable("acme")
    assert await table.set("orders", "1", {"a": 1})
    assert await table.find_by_field("orders", "a", 1) == {"a": 1}
    assert await table.delete_all_by_pkid("1") == 1
    shared = RedisSharedState("acme", "ann")
    assert await shared.upsert("s", {"x": 1})
    assert await shared.list_states() == ["s"]
    assert await shared.clear_all_states() == 1
    assert await RedisStateHandler("acme", "ann").upsert("h", {"x": 1})
    generic = RedisGeneric("acme")
    assert await generic.set("g", 1)
    assert await generic.get("g") == 1
    batch = RedisBatch("acme")
    assert await batch.enqueue("mail", "q", "send", 1) == 1
    assert await batch.get_chunk("mail", "q", "send", 0, 9) == [1]
    claims = await batch.claim("mail", "q", "send", 1)
    assert await batch.ack(claims) == 1
    assert await RedisBatch.get_pending_tenants("mail") == {"acme"}
    assert await RedisBatch.remove_from_pending("mail", "acme")
    await _fire()


async def _fire() -> None:
    fired = asyncio.Event()

    @on_trigger("call")
    async def handle(_: Any) -> None:
        fired.set()

    trigger = RedisTrigger("acme")
    assert await trigger.set("call", "later", 100)
    assert [each.identifier for each in await trigger.pending()] == ["later"]
    assert await trigger.delete("call", "later")
    try:
        async with TriggerRunner(poll_interval=0.01):
            await trigger.set("call", "now", 0.001)
            async with asyncio.timeout(60):
                await fired.wait()
    finally:
        handlers._handlers.pop("call", None)
    assert await trigger.dead() == []


async def use_stores() -> None:
    """Context and state, alone and as a cache before another store."""
    store = RedisContextStore()
    await store.set("k", {"a": 1})
    assert await store.update("k", {"b": 2}) == {"a": 1, "b": 2}
    await store.set_many({"l": {}, "m": {"x": 1}})
    assert await store.get_many(["k", "m"]) == {"k": {"a": 1, "b": 2}, "m": {"x": 1}}
    assert await store.compare_and_set("k", {"a": 2}, expected={"a": 1})
    assert sorted(await store.list_keys()) == ["k", "l", "m"]
    await store.delete("k")
    cached = CacheBackedContextStore(InMemoryContextStore(), store)
    await cached.set("c", {"a": 1})
    assert await cached.get("c") == {"a": 1}
    assert "c" in await store.list_keys(), "the write did not reach the cache"
    states = RedisStateStore()
    await states.save_context(CoachContext(user_id="u"))
    loaded = await states.load_context("u")
    assert loaded is not None
    assert loaded.user_id == "u"


async def use_ops() -> None:
    """Commands on keys of the caller's own, which an access rule must name, too."""
    key = "agent_service%tenant:{own}:key"
    assert await ops.set(key, 1, ttl=60)
    assert await ops.increment(key) == 2
    assert await ops.hash_set(f"{key}:h", {"a": 1}, ttl=60) == 1
    assert await ops.list_append(f"{key}:l", 1) == 1
    await ops.list_trim(f"{key}:l", 0, 1)
    assert await ops.delete(key, f"{key}:h", f"{key}:l") == 3


@cached(namespace="users", key_prefix="p", lock="distributed", tags=["t"])
async def _decorated() -> int:
    return 4


async def _settled() -> None:
    """Wait until it is known whether Redis pushes what changes."""
    manager = await get_redis_manager()
    async with asyncio.timeout(60):
        while manager.get_metrics().get("l1") == "connecting":
            await asyncio.sleep(0.005)


async def _four() -> int:
    return 4


async def _many(keys: Any) -> dict[str, int]:
    return {key: 5 for key in keys if key == "e"}
