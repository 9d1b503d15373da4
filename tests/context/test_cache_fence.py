"""A cache of any kind before a database, used by several processes: no fill is later than a write."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.fences.cache import CacheFence
from agent_service.context.fences.protocol import LEASE_SECONDS
from agent_service.context.memory import InMemoryContextStore
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from tests.context.races import race
from tests.support.forked import Forked

LEASE = 0.1


class Processes:
    """Processes of :mod:`tests.context.late_reader` over one Redis and one database."""

    def __init__(self, redis: str, database: str, stack: ExitStack) -> None:
        self.places = (redis, database)
        self._stack = stack

    async def start(self, action: str) -> Forked:
        return self._stack.enter_context(await Forked.start("tests.context.late_reader", action, *self.places))

    async def run(self, action: str) -> None:
        assert await (await self.start(action)).wait() == 0

    async def begin_to_read(self) -> Forked:
        """Start a process that has read the database and not yet filled the cache."""
        reader = await self.start("read")
        assert await reader.line() == "read"
        return reader


async def end_of(reader: Forked) -> Any:
    """Let a reader fill the cache, and return what it read."""
    reader.stdin.write(b"go on\n")
    found = json.loads(await reader.line())
    await reader.wait()
    return found


@pytest.fixture
async def cache(client: RedisClient) -> AsyncIterator[RedisCache[Any]]:
    cache: RedisCache[Any] = RedisCache(client, namespace="contexts", default_ttl=300)
    yield cache
    await cache.aclose()


@pytest.fixture
async def db(context_file: Path) -> AsyncIterator[DatabaseContextStore]:
    async with DatabaseContextStore(db_path=context_file) as db:
        await db.set("a", {"v": "old"})
        yield db


@pytest.fixture
def processes(redis_url: str, tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(redis_url, f"sqlite+aiosqlite:///{tmp_path / 'context.db'}", stack)


@pytest.fixture
def store(db: DatabaseContextStore, cache: RedisCache[Any]) -> CacheBackedContextStore:
    return CacheBackedContextStore(db=db, cache=CacheContextStore(cache), ttl=300)


@pytest.mark.parametrize(("action", "left"), [("write", {"v": "new"}), ("delete", None)])
async def test_a_late_fill_of_another_process_does_not_cover_a_write(
    processes: Processes, store: CacheBackedContextStore, db: DatabaseContextStore, action: str, left: Any
):
    reader = await processes.begin_to_read()
    await processes.run(action)

    assert await end_of(reader) == {"v": "old"}
    assert await store.get("a") == await db.get("a") == left


async def test_who_dies_between_the_database_and_the_cache_leaves_nothing_old(
    processes: Processes, store: CacheBackedContextStore
):
    reader = await processes.begin_to_read()
    await processes.run("die")

    assert await end_of(reader) == {"v": "old"}
    assert await store.get("a") == {"v": "new"}


async def test_what_a_process_has_filled_another_one_hits(processes: Processes, store: CacheBackedContextStore):
    await end_of(await processes.begin_to_read())

    assert await store.get("a") == {"v": "old"}
    assert store.counters["hits"] == 1


async def test_what_a_process_has_written_another_one_hits(processes: Processes, store: CacheBackedContextStore):
    await processes.run("write")

    assert await store.get("a") == {"v": "new"}
    assert store.counters["hits"] == 1


# -- the fence by itself


@pytest.fixture(params=["memory", "redis"])
def shared(request: pytest.FixtureRequest, cache: RedisCache[Any]) -> Any:
    return InMemoryCache(default_ttl=60) if request.param == "memory" else cache


async def test_of_two_writers_that_overlap_none_is_cached_whoever_finishes_last(shared: Any):
    store = CacheContextStore(shared)
    for first, last in ((0, 1), (1, 0)):
        fences = [store.fence() for _ in range(2)]
        tokens = [await fence.begin(["a"]) for fence in fences]
        await fences[first].finish(tokens[first], ["a"], {"a": {"by": first}}, 60)
        await fences[last].finish(tokens[last], ["a"], {"a": {"by": last}}, 60)

        assert await store.get("a") is None

    token = await store.fence().begin(["a"])
    await store.fence().finish(token, ["a"], {"a": {"alone": 1}}, 60)
    assert await store.get("a") == {"alone": 1}


async def test_there_is_no_lease_while_somebody_writes(shared: Any):
    store = CacheContextStore(shared)
    writer, reader = store.fence(), store.fence()
    writing = await writer.begin(["a", "b"])
    reading = await reader.lease(["a", "c"])

    assert await reader.fill(reading, ["a", "c"], {"a": {"old": 1}, "c": {"fine": 1}}, 60) == 1
    await writer.finish(writing, ["a", "b"], {"a": {"new": 1}}, 60)
    assert await store.get_many(["a", "b", "c"]) == {"a": {"new": 1}, "c": {"fine": 1}}


async def test_a_lease_ends_with_the_next_write_even_when_that_is_over(shared: Any):
    store = CacheContextStore(shared)
    reader, writer = store.fence(), store.fence()
    reading = await reader.lease(["a"])
    await writer.finish(await writer.begin(["a"]), ["a"], {}, 60)

    assert await reader.fill(reading, ["a"], {"a": {"old": 1}}, 60) == 0
    assert await store.get("a") is None
    assert await store.list_keys() == []


async def test_a_writer_that_never_comes_back_keeps_its_key_out_for_some_seconds_only():
    clock = FakeClock()
    store = CacheContextStore(InMemoryCache(default_ttl=600, clock=clock))
    fence = store.fence()
    await fence.begin(["a"])

    async def filled() -> int:
        return await fence.fill(await fence.lease(["a"]), ["a"], {"a": {}}, 60)

    assert await filled() == 0
    clock.advance(LEASE_SECONDS + 1)
    assert await filled() == 1


async def test_a_bookkeeping_entry_that_was_evicted_refuses_the_fill():
    cache: InMemoryCache[Any] = InMemoryCache(default_ttl=60, max_entries=2)
    store = CacheContextStore(cache)
    fence = store.fence()
    reading = await fence.lease(["a"])
    for number in range(4):
        await cache.set(f"other{number}", number)

    assert await fence.fill(reading, ["a"], {"a": {"perhaps old": 1}}, 60) == 0
    assert await store.get("a") is None


async def test_random_races_over_a_shared_cache_never_leave_it_behind_the_database(client: RedisClient):
    db = InMemoryContextStore()
    caches: list[RedisCache[Any]] = [RedisCache(client, namespace="contexts", default_ttl=300) for _ in range(3)]
    stores = [CacheBackedContextStore(db=db, cache=CacheContextStore(cache)) for cache in caches]

    await race(db, stores, 10)
    for cache in caches:
        await cache.aclose()


class SlowOnce(InMemoryCache[Any]):
    """Takes longer than a lease over the first removal of entries."""

    slow = 2 * LEASE

    async def delete_many(self, keys: Iterable[str]) -> int:
        seconds, self.slow = self.slow, 0.0
        await asyncio.sleep(seconds)
        return await super().delete_many(keys)


async def test_a_writer_whose_mark_expired_while_it_began_does_not_take_another_ones_place():
    cache = SlowOnce()
    slow, other = CacheFence(cache, "SlowOnce", LEASE), CacheFence(cache, "SlowOnce", 3600)
    first = await slow.begin(["a"])
    second = await other.begin(["a"])
    await slow.finish(first, ["a"], {"a": {"first": 1}}, 60)

    lease = await other.lease(["a"])
    assert await other.fill(lease, ["a"], {"a": {"old": 1}}, 60) == 0
    await other.finish(second, ["a"], {"a": {"second": 1}}, 60)
    lease = await other.lease(["a"])
    assert await other.fill(lease, ["a"], {"a": {"new": 1}}, 60) == 1
    await cache.aclose()
