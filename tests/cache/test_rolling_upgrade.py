"""Old processes, which keep bookkeeping beside the prefix, and new ones over one Redis: no stale read on any side."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.cache.former_release import FormerProcess
from tests.servers.redis import RedisServer
from tests.support.waiting import until

New = RedisCache[Any]
Change = tuple[Callable[[FormerProcess], object], Callable[[New], Awaitable[object]]]

CHANGES: dict[str, Change] = {
    "delete": (lambda old: old.delete("k"), lambda new: new.delete("k")),
    "delete many": (lambda old: old.delete("k", "l"), lambda new: new.delete_many(["k", "l"])),
    "pattern": (lambda old: old.delete_pattern("[k]*"), lambda new: new.delete_pattern("[k]*")),
    "tag": (lambda old: old.invalidate_tags(["t"]), lambda new: new.invalidate_tags(["t"])),
    "two tags": (lambda old: old.invalidate_tags(["s", "t"]), lambda new: new.invalidate_tags(["s", "t"])),
    "clear": (lambda old: old.clear(), lambda new: new.clear()),
}


@pytest.fixture
def old(redis_url: str) -> FormerProcess:
    return FormerProcess(redis_url)


@pytest.fixture
async def new(client: RedisClient) -> AsyncIterator[New]:
    cache = New(client)
    yield cache
    await cache.aclose()


class Slow:
    """A load that ends when it is told to."""

    def __init__(self, value: int) -> None:
        self.started = asyncio.Event()
        self.finish = asyncio.Event()
        self._value = value

    async def __call__(self) -> int:
        self.started.set()
        await self.finish.wait()
        return self._value


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("by", ["old", "new"])
async def test_a_new_process_does_not_serve_what_an_old_one_invalidated(
    change: str, by: str, old: FormerProcess, new: New
):
    if by == "old":
        old.set("k", 1, ["t"])
    else:
        await new.set("k", 1, tags=["t"])
    assert await new.get("k") == 1

    CHANGES[change][0](old)

    assert await new.get("k") is None
    assert not await new.exists("k")
    assert [key async for key in new.scan("*")] == []
    assert await new.get_many(["k"]) == {}
    assert await new.get_or_load("k", lambda: _value(2), tags=["t"]) == 2


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("by", ["old", "new"])
async def test_an_old_process_does_not_serve_what_a_new_one_invalidated(
    change: str, by: str, old: FormerProcess, new: New
):
    if by == "old":
        old.set("k", 1, ["t"])
    else:
        await new.set("k", 1, tags=["t"])
    assert old.get("k") == 1

    await CHANGES[change][1](new)

    assert old.get("k") is None


@pytest.mark.parametrize("change", CHANGES)
async def test_what_either_stores_after_an_invalidation_by_the_other_is_read_by_both(
    change: str, old: FormerProcess, new: New
):
    await new.set("k", 1, tags=["t"])
    CHANGES[change][0](old)
    await new.set("k", 2, tags=["t"])
    assert (old.get("k"), await new.get("k")) == (2, 2)
    await CHANGES[change][1](new)
    old.set("k", 3, ["t"])

    assert (old.get("k"), await new.get("k")) == (3, 3)


async def test_overwriting_is_seen_on_both_sides(old: FormerProcess, new: New):
    old.set("k", 1)
    await new.set("k", 2)
    assert (old.get("k"), await new.get("k")) == (2, 2)
    old.set("k", 3)

    assert (old.get("k"), await new.get("k")) == (3, 3)


async def test_counters_go_on_across_both(old: FormerProcess, new: New):
    counted = [old.increment("n"), await new.increment("n"), old.increment("n"), await new.increment("n")]

    assert counted == [1, 2, 3, 4]
    assert (old.get("n"), await new.get("n")) == (4, 4)


async def test_a_counter_begins_anew_whoever_cleared_it(old: FormerProcess, new: New):
    old.increment("n")
    await new.increment("n")
    old.clear()
    assert (await new.increment("n"), old.increment("n")) == (1, 2)
    await new.clear()
    assert (old.increment("n"), await new.increment("n")) == (1, 2)
    old.clear()

    assert (old.increment("n"), await new.increment("n"), await new.get("n")) == (1, 2, 2)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_load_of_a_new_process_that_an_old_one_overtook_is_not_stored(
    change: str, old: FormerProcess, new: New
):
    load = Slow(1)
    loading = asyncio.create_task(new.get_or_load("k", load, tags=["t"]))
    await load.started.wait()

    CHANGES[change][0](old)
    load.finish.set()

    assert await loading == 1
    assert (old.get("k"), await new.get("k")) == (None, None)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_load_of_an_old_process_that_a_new_one_overtook_is_not_stored(
    change: str, old: FormerProcess, new: New
):
    load = old.begin_load("k", ["t"])

    await CHANGES[change][1](new)
    old.finish_load(load, 1)

    assert (old.get("k"), await new.get("k")) == (None, None)


@pytest.mark.parametrize("write", ["set", "increment"])
async def test_a_load_is_not_stored_over_what_the_other_side_wrote_meanwhile(write: str, old: FormerProcess, new: New):
    loads = [Slow(1), Slow(1)]
    loading = asyncio.create_task(new.get_or_load("k", loads[0]))
    await loads[0].started.wait()
    old.set("k", 7) if write == "set" else old.increment("k")
    loads[0].finish.set()
    await loading
    assert await new.get("k") == (7 if write == "set" else 1)
    await new.delete("k")
    load = old.begin_load("k")
    await (new.set("k", 8) if write == "set" else new.increment("k"))

    assert not old.finish_load(load, 1)
    assert old.get("k") == (8 if write == "set" else 1)


async def test_a_load_after_an_invalidation_is_stored_although_one_from_before_it_still_runs(
    old: FormerProcess, new: New
):
    early, late = Slow(1), Slow(2)
    loading = asyncio.create_task(new.get_or_load("k", early))
    await early.started.wait()
    old.delete("k")
    await new.delete("k")
    following = asyncio.create_task(new.get_or_load("k", late))
    await late.started.wait()
    late.finish.set()
    assert await following == 2
    early.finish.set()

    assert (await loading, await new.get("k"), old.get("k")) == (1, 2, 2)


async def test_a_load_that_both_sides_run_at_once_is_stored_by_whoever_ends_first(old: FormerProcess, new: New):
    load = old.begin_load("k")
    assert await new.get_or_load("k", lambda: _value(1)) == 1
    assert old.finish_load(load, 2)

    assert (old.get("k"), await new.get("k")) == (2, 2)


@pytest.mark.parametrize("change", CHANGES)
async def test_copies_in_memory_are_dropped_when_an_old_process_invalidates(
    change: str, old: FormerProcess, redis_url: str
):
    client = RedisClient(redis_url, timeout=5)
    feed = NearFeed(client, max_staleness=60)
    cache = TieredCache(New(client), feed)
    old.set("k", 1, ["t"])
    await until(lambda: feed.state() == "live")
    assert await cache.get("k") == 1
    await until(lambda: cache.backend.near.read("k") is not None or _ask(cache))

    CHANGES[change][0](old)

    await until(lambda: cache.backend.near.read("k") is None)
    assert await cache.get("k") is None
    await cache.aclose()
    await feed.aclose()
    await client.aclose()


@pytest.mark.parametrize("change", ["tag", "clear", "delete"])
async def test_what_was_invalidated_while_old_names_were_forbidden_stays_so_when_they_are_permitted_again(
    change: str, old: FormerProcess, redis_server: RedisServer
):
    redis_server.cli("ACL", "SETUSER", "app", "on", ">pw", "resetkeys", "~agent_service*", "+@all")
    url = redis_server.url.replace("redis://", "redis://app:pw@")
    first, second = RedisClient(url, timeout=5), RedisClient(url, timeout=5)
    before, after = New(first), New(second)
    try:
        await before.set("k", 1, tags=["t"])
        redis_server.cli("ACL", "SETUSER", "app", "resetkeys", "~agent_service:*")
        assert await before.get("k") == 1
        await CHANGES[change][1](before)
        redis_server.cli("ACL", "SETUSER", "app", "resetkeys", "~agent_service*")

        assert (await before.get("k"), await after.get("k")) == (None, None)
        await after.set("k", 2, tags=["t"])
        assert (await before.get("k"), await after.get("k"), old.get("k")) == (2, 2, 2)
    finally:
        redis_server.cli("ACL", "DELUSER", "app")
        await first.aclose()
        await second.aclose()


async def _value(value: int) -> int:
    return value


def _ask(cache: TieredCache[Any]) -> bool:
    return len(cache.backend.near) > 0
