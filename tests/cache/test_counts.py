"""Every read is counted once, as a hit or as a miss, on every backend."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agent_service.core.errors import RedisUnavailableError, UndecodableError
from agent_service.infrastructure.cache import cached
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.cache.room import Failing, giving, joined
from tests.support.caches import make_fallback


@pytest.fixture(params=["memory", "redis", "fallback", "tiered"])
async def cache(request: pytest.FixtureRequest, client: RedisClient) -> AsyncIterator[BaseCache[Any]]:
    if request.param == "memory":
        memory: InMemoryCache[Any] = InMemoryCache()
        yield memory
        await memory.aclose()
        return
    if request.param == "fallback":
        fallback, outage = make_fallback(client)
        yield fallback
        await fallback.aclose()
        await outage.aclose()
        return
    redis: RedisCache[Any] = RedisCache(client)
    if request.param == "redis":
        yield redis
        await redis.aclose()
        return
    feed = NearFeed(client)
    tiered: TieredCache[Any] = TieredCache(redis, feed)
    yield tiered
    await tiered.aclose()
    await feed.aclose()


class Raised(Exception):
    pass


def counts(cache: BaseCache[Any]) -> tuple[int, int]:
    return cache.counters.all_hits, cache.counters.misses


async def test_each_way_of_reading_counts_each_key_once(cache: BaseCache[Any]):
    await cache.set("a", 1)
    await cache.set("b", 2)

    await cache.get("a")
    await cache.lookup("nothing")
    await cache.get_many(["a", "b", "nothing"])
    await cache.get_or_load("a", giving(3))
    await cache.get_or_load("loaded", giving(3))
    await cache.get_or_load_many(["a", "many"], lambda keys: giving(dict.fromkeys(keys, 1))())
    await cache.exists("a")
    await cache.ttl("a")

    assert counts(cache) == (5, 4)


async def test_an_exception_that_is_cached_is_no_hit_for_who_wants_a_value(cache: BaseCache[Any]):
    failing = Failing(Raised())
    with pytest.raises(Raised):
        await cache.get_or_load("k", failing, cache_exceptions={Raised: 60})
    cache.counters.reset()

    assert await cache.get("k") is None
    assert not await cache.lookup("k")
    assert await cache.get_many(["k"]) == {}
    assert counts(cache) == (0, 3)

    with pytest.raises(Raised):
        await cache.get_or_load("k", failing, cache_exceptions={Raised: 60})
    assert counts(cache) == (1, 3)
    assert await cache.get_or_load("k", giving(1)) == 1
    assert counts(cache) == (1, 4)


async def test_increments_are_counted(cache: BaseCache[Any]):
    await cache.increment("n")
    await cache.increment("n", 5)

    assert cache.counters.increments == 2
    assert cache.counters.snapshot()["increments"] == 2


async def test_callers_who_wait_for_a_load_are_one_miss_each(cache: BaseCache[Any]):
    values = await asyncio.gather(*(cache.get_or_load("k", giving(1)) for _ in range(20)))

    hits, misses = counts(cache)
    assert values == [1] * 20
    assert hits + misses == 20
    assert cache.counters.loads == 1


async def test_waiting_for_another_process_is_no_further_read(client: RedisClient):
    caches = [RedisCache[Any](client) for _ in range(2)]
    began = asyncio.Event()

    async def slow() -> int:
        began.set()
        await asyncio.sleep(0.2)
        return 1

    first = asyncio.create_task(caches[0].get_or_load("k", slow, lock="distributed"))
    await began.wait()

    assert await caches[1].get_or_load("k", giving(2), lock="distributed") == 1
    assert await first == 1
    assert [counts(each) for each in caches] == [(0, 1), (0, 1)]


@dataclass(frozen=True)
class Point:
    x: int


async def test_a_decorated_read_that_does_not_fit_the_annotation_is_one_miss(cache: BaseCache[Any]):
    @cached(ttl=60, cache=cache)
    async def point(_n: int) -> Point:
        return "none"  # type: ignore[return-value] # which is not stored

    await cache.set(point.cache_key(1), "none either")
    for _ in range(4):
        await point(1)

    assert counts(cache) == (0, 4)
    assert cache.counters.undecodable == 4
    assert point.cache_info() == (0, 4)


async def test_a_decorated_read_that_does_not_fit_is_replaced_and_read_from_then_on(cache: BaseCache[Any]):
    @cached(ttl=60, cache=cache)
    async def point(n: int) -> Point:
        return Point(n)

    await point(1)
    await point(1)
    await cache.set(point.cache_key(1), "no point")
    assert [await point(1) for _ in range(4)] == [Point(1)] * 4

    assert counts(cache) == (4, 2)
    assert cache.counters.undecodable == 1
    assert point.cache_info() == (4, 2)


async def test_a_stale_value_that_does_not_fit_is_not_counted_as_served(cache: BaseCache[Any]):
    """A set of instances has no form as plain data, which is what get_or_load gives."""

    @cached(ttl=0.03, stale_for=60, cache=cache)
    async def points() -> set[Point]:
        return {Point(1)}

    await points()
    before = counts(cache)
    await asyncio.sleep(0.05)
    given = await cache.get_or_load(points.cache_key(), giving("loaded"), stale_for=60, soft_timeout=0, info=True)

    assert (given.value, given.stale_reason) == ("loaded", None)
    assert (cache.counters.stale, counts(cache)) == (0, (before[0], before[1] + 1))


async def test_joining_a_load_whose_result_does_not_fit_is_one_miss(cache: BaseCache[Any]):
    begun, finish = asyncio.Event(), asyncio.Event()

    @cached(ttl=60, cache=cache)
    async def points() -> set[Point]:
        begun.set()
        await finish.wait()
        return {Point(1)}

    first = asyncio.create_task(points())
    await begun.wait()
    second = asyncio.create_task(cache.get_or_load(points.cache_key(), giving("loaded")))
    await joined()
    finish.set()

    assert (await first, await second) == ({Point(1)}, "loaded")
    assert counts(cache) == (0, 2)


async def test_a_read_of_many_that_fails_half_way_counts_each_key_once(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
):
    cache, outage = make_fallback(client)
    await cache.set("a", 1)
    await cache.set("b", 2, tags=["t"])

    async def fail(_names: Sequence[str]) -> Mapping[str, bytes | None]:
        raise RedisUnavailableError("cut off")

    monkeypatch.setattr(cache.backend.redis.tokens, "read", fail)
    assert await cache.get_many(["a", "b"]) == {}

    of_memory = cache.backend.memory.counters
    assert (counts(cache), (of_memory.hits, of_memory.misses)) == ((0, 0), (0, 2))
    await cache.aclose()
    await outage.aclose()


class Unreadable:
    def dumps(self, _value: Any) -> bytes:
        return b"written"

    def loads(self, _data: bytes) -> Any:
        raise UndecodableError("not readable")


async def test_what_memory_cannot_decode_is_a_miss():
    cache: InMemoryCache[Any] = InMemoryCache(serializer=Unreadable())
    await cache.set("a", [[1]])

    assert await cache.get("a") is None
    assert await cache.get_many(["a"]) == {}
    assert counts(cache) == (0, 2)
    assert cache.counters.undecodable == 2
