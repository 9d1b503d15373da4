"""What a cache-backed store knows about its cache, over a fence that fails when it is told to."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from agent_service.context.fences import Fence
from agent_service.context.guard import CacheGuard
from agent_service.context.interface import Document, Key
from agent_service.core.errors import ContextStoreError, RedisUnavailableError
from agent_service.testing.clock import FakeClock

TTL = 300.0


class Told(Fence):
    """Notes what it is asked, and raises what it shall."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Key]]] = []
        self.failing: BaseException | None = None

    def _ask(self, name: str, keys: Collection[Key]) -> str:
        if self.failing is not None:
            raise self.failing
        self.asked.append((name, list(keys)))
        return f"token {name}"

    async def begin(self, keys: Collection[Key]) -> str:
        return self._ask("begin", keys)

    async def renew(self, token: str, keys: Collection[Key]) -> str:
        return token

    async def finish(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> None:
        self._ask("finish", keys)

    async def lease(self, keys: Collection[Key]) -> str:
        return self._ask("lease", keys)

    async def fill(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> int:
        return len(documents)


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
def guard(fence: Told, clock: FakeClock) -> CacheGuard:
    return CacheGuard(fence, ttl=TTL, lease=10, clock=clock)


@pytest.mark.parametrize("failing", [ContextStoreError("no"), asyncio.CancelledError(), SystemExit()])
async def test_a_write_whose_end_the_cache_did_not_take_leaves_its_key_unread(
    guard: CacheGuard, fence: Told, failing: BaseException
):
    token = await guard.begin(["a"])
    fence.failing = failing
    try:
        await guard.finish(token, ["a"], {"a": {}}, TTL)
    except (asyncio.CancelledError, SystemExit) as exc:
        assert exc is failing  # noqa: PT017 - only those go through

    assert not guard.trusts("a")
    assert guard.trusts("b")


async def test_a_write_that_could_not_begin_at_the_fence_leaves_its_key_unread(guard: CacheGuard, fence: Told):
    fence.failing = ContextStoreError("no")

    assert await guard.begin(["a"]) == ""
    assert not guard.trusts("a")


async def test_a_load_uncaches_what_is_dirty_before_it_begins(guard: CacheGuard, fence: Told):
    fence.failing = ContextStoreError("no")
    await guard.begin(["a"])
    fence.failing = None

    assert await guard.lease(["a", "b"]) == "token lease"
    assert fence.asked == [("finish", ["a"]), ("lease", ["a", "b"])]
    assert guard.trusts("a")


async def test_the_probe_after_an_outage_uncaches_every_dirty_key(guard: CacheGuard, fence: Told, clock: FakeClock):
    fence.failing = outage()
    for key in ("a", "b", "c"):
        await guard.begin([key])
    fence.failing = None
    clock.advance(60)
    await guard.begin(["d"])

    assert fence.asked == [("finish", ["a", "b", "c"]), ("begin", ["d"])]
    assert all(map(guard.trusts, "abcd"))


async def test_a_probe_that_is_cancelled_is_made_again(guard: CacheGuard, fence: Told, clock: FakeClock):
    fence.failing = outage()
    await guard.begin(["a"])
    clock.advance(60)
    fence.failing = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await guard.begin(["b"])
    fence.failing = None
    clock.advance(60)

    assert await guard.begin(["c"]) == "token begin"
    assert guard.trusts("a")


async def test_while_too_much_is_dirty_nothing_is_read_or_loaded_into_the_cache(
    guard: CacheGuard, fence: Told, clock: FakeClock
):
    fence.failing = ContextStoreError("no")
    await guard.begin(list(range(10_001)))
    fence.failing = None
    clock.advance(TTL - 1)

    assert not guard.trusts("other")
    assert await guard.lease(["other"]) is None
    assert fence.asked == []
    clock.advance(1)
    assert guard.trusts("other")
    assert await guard.lease(["other"]) == "token lease"
