"""What a cache-backed store does when its cache fails, over a fence that fails when it is told to."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.fences.protocol import Fence, Fenced
from agent_service.context.interface import Document
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import ContextStoreError, RedisUnavailableError
from agent_service.testing.clock import FakeClock

TTL = 300.0


class Told(Fence):
    """Notes what it is asked, and raises what it shall."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.failing: BaseException | None = None

    def _ask(self, name: str, keys: Collection[str]) -> str:
        if self.failing is not None:
            raise self.failing
        self.asked.append((name, list(keys)))
        return f"token {name}"

    async def begin(self, keys: Collection[str]) -> str:
        return self._ask("begin", keys)

    async def renew(self, token: str, keys: Collection[str]) -> str:
        return token

    async def finish(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> None:
        self._ask("finish", keys)

    async def lease(self, keys: Collection[str]) -> str:
        return self._ask("lease", keys)

    async def fill(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> int:
        return len(documents)


class Cache(InMemoryContextStore, Fenced):
    """A cache behind that fence, which holds what was put into it beforehand."""

    def __init__(self, fence: Fence) -> None:
        super().__init__()
        self._fence = fence

    def fence(self, lease: float = 10.0) -> Fence:
        return self._fence


class Slow(InMemoryContextStore):
    """A database that says when a write is under way, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.during = lambda: None

    async def delete(self, key: object) -> None:
        self.during()


def outage() -> ContextStoreError:
    error = ContextStoreError("away")
    error.__cause__ = RedisUnavailableError("away")
    return error


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fence() -> Told:
    return Told()


@pytest.fixture
def db() -> Slow:
    return Slow()


@pytest.fixture
def store(fence: Told, clock: FakeClock, db: Slow) -> CacheBackedContextStore:
    return CacheBackedContextStore(db, Cache(fence), ttl=TTL, lease_seconds=10, clock=clock)


def trusts(store: CacheBackedContextStore, key: str) -> bool:
    return store._guard.trusts(key)


@pytest.mark.parametrize("failing", [ContextStoreError("no"), asyncio.CancelledError(), SystemExit()])
async def test_a_write_whose_end_the_cache_did_not_take_leaves_its_key_unread(
    store: CacheBackedContextStore, fence: Told, failing: BaseException
):
    write = await store._begin(["a"])
    fence.failing = failing
    try:
        await store._finish(write, {"a": {}})
    except (asyncio.CancelledError, SystemExit) as exc:
        assert exc is failing  # noqa: PT017 - only those go through

    assert not trusts(store, "a")
    assert trusts(store, "b")


async def test_a_write_that_could_not_begin_at_the_fence_leaves_its_key_unread(
    store: CacheBackedContextStore, fence: Told, db: Slow
):
    seen: list[bool] = []
    db.during = lambda: seen.append(trusts(store, "a"))
    fence.failing = ContextStoreError("no")

    await store.delete("a")

    assert seen == [False]
    assert not trusts(store, "a")


async def test_a_load_uncaches_what_is_dirty_before_it_begins(store: CacheBackedContextStore, fence: Told):
    fence.failing = ContextStoreError("no")
    await store.delete("a")
    fence.failing = None

    await store.get_many(["a", "b"])

    assert fence.asked == [("finish", ["a"]), ("lease", ["a", "b"])]
    assert trusts(store, "a")


async def test_the_probe_after_an_outage_uncaches_every_dirty_key(
    store: CacheBackedContextStore, fence: Told, clock: FakeClock
):
    fence.failing = outage()
    for key in ("a", "b", "c"):
        await store.delete(key)
    fence.failing = None
    clock.advance(60)
    await store.delete("d")

    assert fence.asked == [("finish", ["a", "b", "c"]), ("begin", ["d"]), ("finish", ["d"])]
    assert all(trusts(store, key) for key in "abcd")


async def test_a_probe_that_is_cancelled_is_made_again(store: CacheBackedContextStore, fence: Told, clock: FakeClock):
    fence.failing = outage()
    await store.delete("a")
    clock.advance(60)
    fence.failing = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await store.delete("b")
    fence.failing = None
    clock.advance(60)
    await store.delete("c")

    assert fence.asked == [("finish", ["a"]), ("begin", ["c"]), ("finish", ["c"])]
    assert trusts(store, "a")


async def test_while_too_much_is_dirty_nothing_is_read_or_loaded_into_the_cache(
    store: CacheBackedContextStore, fence: Told, clock: FakeClock
):
    fence.failing = ContextStoreError("no")
    await store.delete_many([f"{number}" for number in range(10_001)])
    fence.failing = None
    clock.advance(TTL - 1)

    assert not trusts(store, "other")
    await store.get("other")
    assert fence.asked == []
    clock.advance(1)
    assert trusts(store, "other")
    await store.get("other")
    assert fence.asked == [("lease", ["other"])]
