"""Write-through: the contract over every pair, and what the cache may never say after failures and races."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.caching.stamped import StampedStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context.races import race
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking


class TestMemoryOverSQLite(ContextStoreContract):
    @pytest.fixture
    async def store(self, context_file: Path) -> AsyncIterator[ContextStore]:
        db = DatabaseContextStore(db_path=context_file)
        async with CacheBackedContextStore(db=db, cache=InMemoryContextStore()) as store:
            yield store


class TestRedisOverPostgresWithAPrefix(ContextStoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str, redis_url: str) -> AsyncIterator[ContextStore]:
        db, cache = DatabaseContextStore(url=postgres_url), RedisContextStore(url=redis_url, timeout=10)
        async with CacheBackedContextStore(db=db, cache=cache, prefix="bro") as store:
            yield store


class TestRedisOverFiles(ContextStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path, redis_url: str) -> AsyncIterator[ContextStore]:
        cache = RedisContextStore(url=redis_url, timeout=10)
        async with CacheBackedContextStore(db=FileContextStore(tmp_path), cache=cache) as store:
            yield store


class TestMemoryOverRedisWithACacheThatCannotExpire(ContextStoreContract):
    @pytest.fixture
    async def store(self, redis_url: str, tmp_path: Path) -> AsyncIterator[ContextStore]:
        db = RedisContextStore(url=redis_url, timeout=10)
        async with CacheBackedContextStore(db=db, cache=FileContextStore(tmp_path)) as store:
            yield store


class SlowStore(InMemoryContextStore):
    """A database whose reads and writes wait for the test's permission, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.read_done = asyncio.Event()
        self.written = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fail = False

    async def get(self, key: Key) -> Document | None:
        self.reads += 1
        found = await super().get(key)
        self.read_done.set()
        await self.go_on.wait()
        return found

    async def set(self, key: Key, value: Mapping[str, Any], **options: Any) -> None:
        if self.fail:
            raise ContextStoreError("the database is gone")
        await super().set(key, value, **options)
        self.written.set()
        await self.go_on.wait()


@pytest.fixture(params=["memory", "redis", "cache in memory", "cache in redis", "that cannot expire"])
async def cache(request: pytest.FixtureRequest, client: RedisClient, tmp_path: Path) -> AsyncIterator[ContextStore]:
    icache: RedisCache[Any] = RedisCache(client, namespace="contexts")
    kinds = {
        "memory": lambda: InMemoryContextStore(),
        "redis": lambda: RedisContextStore(client=client),
        "cache in memory": lambda: CacheContextStore(InMemoryCache()),
        "cache in redis": lambda: CacheContextStore(icache),
        "that cannot expire": lambda: StampedStore(FileContextStore(tmp_path), clock=SYSTEM_CLOCK),
    }
    yield kinds[request.param]()
    await icache.aclose()


async def test_a_miss_is_read_once_and_then_hit(cache: ContextStore):
    db = SlowStore()
    await db.set("a", {"x": 1})
    store = CacheBackedContextStore(db=db, cache=cache)

    assert [await store.get("a") for _ in range(3)] == [{"x": 1}] * 3
    assert db.reads == 1
    assert await cache.get("a") == {"x": 1}
    assert dict(store.counters) == {"hits": 2, "misses": 1, "fills": 1, "fills_refused": 0, "cache_errors": 0}


async def test_writes_go_to_the_database_and_then_to_the_cache(cache: ContextStore):
    db = InMemoryContextStore()
    store = CacheBackedContextStore(db=db, cache=cache)
    await store.set("a", {"x": 1})
    await store.set_many({"b": {"x": 2}, ("c",): {"x": 3}})
    merged = await store.update("a", {"y": 2})

    assert merged == await db.get("a") == await cache.get("a") == {"x": 1, "y": 2}
    assert await cache.get_many(["b", ("c",)]) == {"b": {"x": 2}, ("c",): {"x": 3}}
    await store.delete("a")
    assert await db.get("a") is None
    assert await cache.get("a") is None


async def test_update_reads_the_database_and_not_the_cache(cache: ContextStore):
    db = InMemoryContextStore()
    store = CacheBackedContextStore(db=db, cache=cache)
    await store.set("a", {"x": 1})
    await db.set("a", {"x": 2, "other process": True})

    assert await store.update("a", {"y": 1}) == {"x": 2, "other process": True, "y": 1}
    assert await store.get("a") == {"x": 2, "other process": True, "y": 1}


async def test_a_cached_context_lives_as_long_as_it_was_given(client: RedisClient):
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=RedisContextStore(client=client), ttl=120)
    await store.set("a", {})
    await store.update("b", {})
    await store._db.set("c", {})
    await store.get("c")

    for key in "abc":
        assert 110_000 < await client.execute("PTTL", f"dynagent_ctx_{key}") <= 120_000
    assert await client.execute("KEYS", "*%fence*") == []


async def test_a_database_error_is_raised_and_nothing_is_cached(cache: ContextStore):
    db = SlowStore()
    store = CacheBackedContextStore(db=db, cache=cache)
    await store.set("a", {"old": 1})
    db.fail = True

    with pytest.raises(ContextStoreError, match="gone"):
        await store.set("a", {"new": 1})

    assert await cache.get("a") is None
    assert await store.get("a") == {"old": 1}


async def test_a_value_read_before_a_write_is_not_cached_after_it(cache: ContextStore):
    db = SlowStore()
    await db.set("a", {"v": "old"})
    reader = CacheBackedContextStore(db=db, cache=cache)
    db.go_on.clear()
    reading = asyncio.create_task(reader.get("a"))
    await db.read_done.wait()
    db.go_on.set()
    # The reader has the old value in its hands and is not yet resumed.
    await reader.delete("a")
    await db.set("a", {"v": "new"})

    assert await reading in ({"v": "old"}, {"v": "new"})
    assert await reader.get("a") == {"v": "new"}


async def test_a_late_fill_of_another_process_is_refused_by_redis(client: RedisClient):
    """Two stores that share nothing but Redis and the database stand for two processes."""
    db = SlowStore()
    await db.set("a", {"v": "old"})
    reader, writer = (CacheBackedContextStore(db=db, cache=RedisContextStore(client=client)) for _ in range(2))
    db.go_on.clear()
    reading = asyncio.create_task(reader.get("a"))
    await db.read_done.wait()
    writing = asyncio.create_task(writer.set("a", {"v": "new"}))
    await db.written.wait()
    db.go_on.set()
    await asyncio.gather(reading, writing)

    assert reader.counters["fills_refused"] == 1
    assert await reader.get("a") == {"v": "new"}
    assert await RedisContextStore(client=client).get("a") == {"v": "new"}


async def test_of_overlapping_writes_none_is_cached(cache: ContextStore):
    db = SlowStore()
    store = CacheBackedContextStore(db=db, cache=cache)
    db.go_on.clear()
    first = asyncio.create_task(store.set("a", {"v": 1}))
    await db.written.wait()
    db.written.clear()
    second = asyncio.create_task(store.set("a", {"v": 2}))
    await db.written.wait()
    db.go_on.set()
    await asyncio.gather(first, second)

    assert await cache.get("a") is None
    assert await store.get("a") == {"v": 2}
    await store.set("a", {"v": 3})
    assert await cache.get("a") == {"v": 3}


async def test_a_cancelled_write_is_finished_at_the_fence(cache: ContextStore):
    db = SlowStore()
    store = CacheBackedContextStore(db=db, cache=cache)
    db.go_on.clear()
    writing = asyncio.create_task(store.set("a", {"v": 1}))
    await db.written.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    db.go_on.set()

    assert await store.get("a") == {"v": 1}
    await store.set("a", {"v": 2})
    assert await cache.get("a") == {"v": 2}


async def test_thirty_concurrent_updates_keep_thirty_fields_and_the_cache_agrees(cache: ContextStore):
    db = InMemoryContextStore()
    store = CacheBackedContextStore(db=db, cache=cache)

    await asyncio.gather(
        *(store.update("a", {f"field{n}": n}) for n in range(30)), *(store.get("a") for _ in range(30))
    )

    assert await store.get("a") == await db.get("a") == {f"field{n}": n for n in range(30)}


async def test_random_races_never_leave_the_cache_behind_the_database(client: RedisClient):
    db = InMemoryContextStore()
    stores = [CacheBackedContextStore(db=db, cache=RedisContextStore(client=client)) for _ in range(3)]

    await race(db, stores, 20)


# -- the cache fails


async def test_a_cache_killed_between_the_two_writes_leaves_the_next_read_right(own_redis: RedisServer):
    db = SlowStore()
    async with CacheBackedContextStore(db=db, cache=RedisContextStore(url=own_redis.url)) as store:
        await store.set("a", {"v": "old"})
        assert await store.get("a") == {"v": "old"}
        db.written.clear()
        db.go_on.clear()
        writing = asyncio.create_task(store.set("a", {"v": "new"}))
        await db.written.wait()
        own_redis.kill()
        db.go_on.set()
        await writing

        assert await store.get("a") == {"v": "new"}
        assert await store.update("a", {"x": 1}) == {"v": "new", "x": 1}
        assert await store.get("a") == {"v": "new", "x": 1}
        assert store.counters["cache_errors"] >= 1


async def test_what_was_written_during_an_outage_is_uncached_before_the_cache_is_read_again(redis_proxy: TcpProxy):
    clock = FakeClock()
    db = InMemoryContextStore()
    cache = RedisContextStore(url=redis_proxy.url, timeout=0.1)
    async with CacheBackedContextStore(db=db, cache=cache, clock=clock) as store:
        await store.set_many({"a": {"v": "old"}, "b": {"v": "old"}, "c": {"v": "old"}})
        redis_proxy.stall()
        await store.set("a", {"v": "new"})
        await store.delete("b")
        during = [await store.get(key) for key in "abc"]
        redis_proxy.resume()
        still = [await store.get(key) for key in "abc"]
        clock.advance(1)
        after = [await store.get(key) for key in "abc"]
        direct = [await cache.get(key) for key in "abc"]

    assert during == still == after == [{"v": "new"}, None, {"v": "old"}]
    # The write that the outage cut off may still count as under way, and keep its key uncached.
    assert direct[0] in (None, {"v": "new"})
    assert direct[1] is None


async def test_an_outage_costs_one_timeout_and_not_one_each_call(redis_proxy: TcpProxy):
    store = CacheBackedContextStore(
        db=InMemoryContextStore(), cache=RedisContextStore(url=redis_proxy.url, timeout=0.2), clock=FakeClock()
    )
    redis_proxy.stall()
    async with ticking() as ticks:
        for number in range(50):
            await store.set(number, {"n": number})
            assert await store.get(number) == {"n": number}

    assert ticks.seconds < 2
    assert store.counters["cache_errors"] == 1
    redis_proxy.resume()
    await store.aclose()


async def test_one_key_that_the_cache_refuses_does_not_stop_the_others(client: RedisClient):
    await client.execute("SET", "dynagent_ctx_taken", "another program's")
    db = SlowStore()
    store = CacheBackedContextStore(db=db, cache=RedisContextStore(client=client))
    await db.set("taken", {"v": 1})

    assert await store.get("taken") == {"v": 1}
    await store.set("fine", {"v": 2})
    assert await store.get("fine") == {"v": 2}
    assert db.reads == 1


async def test_too_many_dirty_keys_blind_the_store_until_what_was_cached_is_over(redis_proxy: TcpProxy):
    clock = FakeClock()
    cache = RedisContextStore(url=redis_proxy.url, timeout=0.2)
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=cache, clock=clock)
    await store.set("a", {"v": "old"})
    redis_proxy.stall()
    await store.set("a", {"v": "new"})
    await store.set_many({n: {} for n in range(10_001)})
    redis_proxy.resume()
    clock.advance(5)
    await store.set("b", {})

    assert await store.get("a") == {"v": "new"}
    assert store._guard.trusts("a") is False
    clock.advance(300)
    assert store._guard.trusts("a") is True
    await store.aclose()


# -- time to live


class Theirs:
    """A store of the second document, which knows no time to live."""

    def __init__(self) -> None:
        self.data: dict[Any, dict[str, Any]] = {}

    def get(self, key: Any) -> dict[str, Any] | None:
        return self.data.get(key)

    def set(self, key: Any, value: dict[str, Any]) -> None:
        self.data[key] = value

    def delete(self, key: Any) -> None:
        self.data.pop(key, None)

    def list_keys(self) -> list[Any]:
        return list(self.data)


@pytest.mark.parametrize("kind", ["file", "sqlite", "shards of sqlite", "outside"])
async def test_a_cache_that_cannot_expire_is_bounded_all_the_same(kind: str, tmp_path: Path):
    clock = FakeClock()
    caches: dict[str, Any] = {
        "file": lambda: FileContextStore(tmp_path),
        "sqlite": lambda: DatabaseContextStore(db_path=tmp_path / "cache.db"),
        "shards of sqlite": lambda: ShardManager({"a": DatabaseContextStore(db_path=tmp_path / "shard.db")}),
        "outside": Theirs,
    }
    cache = caches[kind]()
    db = InMemoryContextStore()
    async with CacheBackedContextStore(db=db, cache=cache, ttl=60, clock=clock) as store:
        await store.set("a", {"v": 1})
        await store.set_many({"b": {"v": 1}, "c": {"v": 1}})
        await db.set_many({key: {"v": 2} for key in "abc"})
        clock.advance(59)
        before = await store.get_many("abc")
        clock.advance(2)
        after = [await store.get(key) for key in "abc"]
        again = await store.get_many("abc")

    assert before == {key: {"v": 1} for key in "abc"}
    assert after == [{"v": 2}] * 3
    assert again == {key: {"v": 2} for key in "abc"}
    assert store.counters["hits"] == 6


async def test_what_somebody_else_left_in_such_a_cache_is_not_read(tmp_path: Path):
    cache = FileContextStore(tmp_path)
    await cache.set("a", {"v": "of an earlier release"})
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=cache)

    assert await store.get("a") is None


@pytest.mark.parametrize("kind", ["memory", "redis", "file", "cache"])
async def test_a_cached_context_may_stay_for_ever(kind: str, client: RedisClient, tmp_path: Path):
    clock = FakeClock()
    caches: dict[str, Any] = {
        "memory": lambda: InMemoryContextStore(clock=clock),
        "redis": lambda: RedisContextStore(client=client),
        "file": lambda: FileContextStore(tmp_path),
        "cache": lambda: CacheContextStore(InMemoryCache(clock=clock)),
    }
    db = SlowStore()
    store = CacheBackedContextStore(db=db, cache=caches[kind](), ttl=NEVER, clock=clock)
    await store.set("a", {"v": 1})
    await db.set("b", {"v": 1})
    await store.get("b")
    clock.advance(10**6)

    assert await store.get_many(["a", "b"]) == {"a": {"v": 1}, "b": {"v": 1}}
    assert store.counters["hits"] == 2
    assert store.counters["cache_errors"] == 0


# -- misuse


def test_a_store_is_no_cache_of_itself():
    store = InMemoryContextStore()

    with pytest.raises(ConfigurationError):
        CacheBackedContextStore(db=store, cache=store)


@pytest.mark.parametrize("ttl", [0, -1, "60"])
def test_an_unusable_time_to_live_of_the_cache_is_refused(ttl: Any):
    with pytest.raises(ContextStoreError, match="ttl"):
        CacheBackedContextStore(db=InMemoryContextStore(), cache=InMemoryContextStore(), ttl=ttl)
