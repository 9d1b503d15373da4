"""A write through a cache that takes longer than a lease: nobody caches what the database is about to replace."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.fences.protocol import Fence, Fenced
from agent_service.context.interface import ContextStore, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.core.errors import ContextStoreError, RedisUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from tests.support.forked import Forked

LEASE = 3.0


@pytest.fixture(params=["cache", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def cache(kind: str, client: RedisClient) -> AsyncIterator[Any]:
    if kind == "redis":
        yield RedisContextStore(client=client)
        return
    cache: RedisCache[Any] = RedisCache(client, namespace="contexts", default_ttl=300)
    yield CacheContextStore(cache)
    await cache.aclose()


async def test_a_writer_that_dies_after_a_long_write_and_its_commit_leaves_nothing_old(
    client: RedisClient, redis_url: str, tmp_path: Path
):
    cache: RedisCache[Any] = RedisCache(client, namespace="contexts", default_ttl=300)
    caches = {"cache": CacheContextStore(cache), "redis": RedisContextStore(client=client)}
    await asyncio.gather(*(outlive(kind, each, redis_url, tmp_path) for kind, each in caches.items()))
    await cache.aclose()


async def outlive(kind: str, cache: ContextStore, redis_url: str, folder: Path) -> None:
    """Read all the while another process writes for two leases, commits, and dies before it reaches the cache."""
    place = f"sqlite+aiosqlite:///{folder / kind}.db"
    async with DatabaseContextStore(url=place) as db:
        await db.set("a", {"v": "old"})
        store = CacheBackedContextStore(db=db, cache=cache, ttl=300, lease_seconds=LEASE)
        assert await store.get("a") == {"v": "old"}
        die_late = ("tests.context.late_reader", "die-late", redis_url, place, kind, f"{2 * LEASE}")
        with await Forked.start(*die_late, environment={"CACHE_LEASE_SECONDS": f"{LEASE}"}) as writer:
            assert await writer.line() == "writing"
            while writer.returncode is None:
                await store.get("a")
                await asyncio.sleep(0.02)

        hits = store.counters["hits"]
        async with asyncio.timeout(60):
            while store.counters["hits"] == hits:  # until the lease of the dead is over, and the key is cached again
                assert await store.get("a") == {"v": "new"}
                await asyncio.sleep(0.05)


async def refill(fence: Fence, key: str, document: dict[str, Any]) -> int:
    return await fence.fill(await fence.lease([key]), [key], {key: document}, 60)


async def lapse(cache: Any, client: RedisClient) -> None:
    """Let all that stands at the fences be over at once."""
    assert isinstance(cache, ContextStore)
    await client.unlink([name async for page in client.scan(b"*fence*") for name in page])
    await client.unlink([name async for page in client.scan(b"*!a") for name in page])


async def test_a_write_that_is_renewed_is_cached_at_its_end(cache: Any):
    writer, reader = cache.fence(3600), cache.fence(0.001)
    token = await writer.begin(["a"])
    for _ in range(3):
        token = await writer.renew(token, ["a"])
        assert await refill(reader, "a", {"old": 1}) == 0
    await writer.finish(token, ["a"], {"a": {"new": 1}}, 60)

    assert await cache.get("a") == {"new": 1}


async def test_a_renewal_takes_out_what_was_cached_while_the_fence_was_down(cache: Any, client: RedisClient):
    writer, reader = cache.fence(), cache.fence()
    token = await writer.begin(["a"])
    await lapse(cache, client)
    assert await refill(reader, "a", {"old": 1}) == 1
    lease = await reader.lease(["a"])

    token = await writer.renew(token, ["a"])

    assert await cache.get("a") is None
    assert await reader.fill(lease, ["a"], {"a": {"old": 1}}, 60) == 0
    assert await refill(reader, "a", {"old": 1}) == 0
    # Another writer may have come and gone meanwhile, so nobody knows whose value the database holds.
    await writer.finish(token, ["a"], {"a": {"perhaps": 1}}, 60)
    assert await cache.get("a") is None
    assert await refill(reader, "a", {"new": 1}) == 1


async def test_writers_that_overlapped_are_known_to_have_for_as_long_as_one_is_renewed(cache: Any, kind: str):
    first, second = cache.fence(3600), cache.fence(0.001 if kind == "redis" else 3600)
    token = await first.begin(["a"])
    await second.finish(await second.begin(["a"]), ["a"], {"a": {"by": 2}}, 60)
    token = await first.renew(token, ["a"])
    await asyncio.sleep(0.01)
    assert await refill(cache.fence(), "a", {"old": 1}) == 0

    await first.finish(token, ["a"], {"a": {"by": 1}}, 60)

    assert await cache.get("a") is None
    assert await refill(cache.fence(), "a", {"new": 1}) == 1


async def test_a_mark_in_memory_lives_as_long_as_it_is_renewed():
    clock = FakeClock()
    store = CacheContextStore(InMemoryCache(default_ttl=600, clock=clock))
    fence = store.fence(4)
    token = await fence.begin(["a"])
    for _ in range(5):
        clock.advance(3)
        token = await fence.renew(token, ["a"])
    assert await refill(fence, "a", {"old": 1}) == 0
    clock.advance(5)
    assert await refill(fence, "a", {"old": 1}) == 1

    await fence.renew(token, ["a"])

    assert await store.get("a") is None


class Slow(InMemoryContextStore):
    """A database that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def set(self, key: Key, value: Mapping[str, Any], **options: Any) -> None:
        await self.go_on.wait()
        await super().set(key, value, **options)


class Counted(CacheContextStore):
    """A cache whose fence counts renewals, and fails at them if it is told to."""

    def __init__(self) -> None:
        super().__init__(InMemoryCache(default_ttl=600))
        self.renewed, self.fails = asyncio.Event(), False

    def fence(self, lease: float = 10.0) -> Fence:
        fence, outer = super().fence(lease), self

        class Counting(type(fence)):  # type: ignore[misc] # its class is known when it runs
            async def renew(self, token: str, keys: Any) -> str:
                outer.renewed.set()
                if outer.fails:
                    raise RedisUnavailableError("down")
                return str(await super().renew(token, keys))

        fence.__class__ = Counting
        return fence


@pytest.mark.parametrize("how", ["well", "cancelled", "fails"])
async def test_renewing_ends_with_the_write(how: str):
    db, cache = Slow(), Counted()
    cache.fails = how == "fails"
    store = CacheBackedContextStore(db=db, cache=cache, lease_seconds=0.03)
    writing = asyncio.create_task(store.set("a", {"n": 1}))
    await asyncio.wait_for(cache.renewed.wait(), 30)
    if how == "cancelled":
        writing.cancel()
    db.go_on.set()
    await asyncio.wait({writing})

    assert len(asyncio.all_tasks()) == 1
    assert await store.get("a") == (None if how == "cancelled" else {"n": 1})


async def test_a_short_write_makes_no_task_to_renew_it():
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=Counted())
    try:
        await store.set("a", {})
    finally:
        loop.set_task_factory(None)

    assert not [each for each in made if "_go_on" in each]


@pytest.mark.parametrize("wrong", [0, -1, NEVER, "10", float("nan")], ids=repr)
def test_a_lease_that_is_none_is_refused(wrong: Any):
    with pytest.raises(ContextStoreError, match="lease_seconds"):
        CacheBackedContextStore(InMemoryContextStore(), InMemoryContextStore(), lease_seconds=wrong)


def test_the_lease_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch):
    leases: list[float] = []

    class Noted(InMemoryContextStore, Fenced):
        def fence(self, lease: float = 10.0) -> Fence:
            leases.append(lease)
            return Counted().fence(lease)

    monkeypatch.setenv("CACHE_LEASE_SECONDS", "42.5")
    reset_settings()
    CacheBackedContextStore(InMemoryContextStore(), Noted())
    CacheBackedContextStore(InMemoryContextStore(), Noted(), lease_seconds=7)
    monkeypatch.undo()
    reset_settings()

    assert leases == [42.5, 7]
