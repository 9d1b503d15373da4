"""What one process invalidates, no other process stores afterwards.

Two caches with lease books and clients of their own stand for two processes: Redis is all they share.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from agent_service.core.errors import RedisUnavailableError
from agent_service.infrastructure.cache.loads.policy import make_policy
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames
from tests.cache.gates import GatedClient, Gates, free
from tests.servers.proxy import TcpProxy
from tests.servers.redis import GivenServer, RedisServer
from tests.support.caches import make_fallback, recover

Cache = RedisCache[Any]


class Load:
    """A load that waits until it is told to finish."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.started = asyncio.Event()
        self.finish = asyncio.Event()

    async def __call__(self) -> Any:
        self.started.set()
        await self.finish.wait()
        return self.value


async def loaded(value: Any) -> Any:
    return value


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[tuple[Cache, Cache]]:
    clients = [RedisClient(redis_url, timeout=5) for _ in range(2)]
    caches = [RedisCache[Any](each, lease_seconds=5) for each in clients]
    yield caches[0], caches[1]
    for cache, client in zip(caches, clients, strict=True):
        await cache.aclose()
        await client.aclose()


Gated = tuple[Gates, Cache, Cache, contextvars.Context]


@pytest.fixture
async def gated(redis_url: str) -> AsyncIterator[Gated]:
    """Gates, two caches whose commands stop at them, and a context of tasks that pass them."""
    gates = Gates()
    clients = [GatedClient(redis_url, timeout=5) for _ in range(2)]
    for each in clients:
        each.gates = gates
    unhindered = contextvars.copy_context()
    unhindered.run(free.set, True)
    yield gates, RedisCache[Any](clients[0]), RedisCache[Any](clients[1]), unhindered
    for each in clients:
        await each.aclose()


def leases(server: RedisServer | GivenServer) -> list[bytes]:
    return [key for key in server.cli("KEYS", "*") if b"%lease" in key]


CHANGES: dict[str, Callable[[Cache], Awaitable[Any]]] = {
    "delete": lambda cache: cache.delete("k"),
    "delete_many": lambda cache: cache.delete_many(["other", "k"]),
    "set": lambda cache: cache.set("k", "new"),
    "set_many": lambda cache: cache.set_many({"other": 1, "k": "new"}),
    "expire": lambda cache: cache.expire("k", 0),
    "pattern": lambda cache: cache.delete_pattern("?*"),
    "literal pattern": lambda cache: cache.delete_pattern("k"),
    "tag": lambda cache: cache.invalidate_tags(["t"]),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_value_loaded_before_another_process_invalidated_is_not_stored(two: tuple[Cache, Cache], change: str):
    here, there = two
    old = Load("old")
    early = asyncio.create_task(here.get_or_load("k", old, tags=["t"]))
    await old.started.wait()

    await CHANGES[change](there)
    old.finish.set()

    assert await early == "old"
    assert here.counters.fill_rejected == 1
    assert await here.get("k") == (await there.get("k")) == ("new" if change.startswith("set") else None)


class SteppingClient(RedisClient):
    """A client whose commands are sent one by one, because Redis may serve others between any two of them."""

    steps = 0
    halt_at = -1
    meanwhile: Callable[[], Awaitable[None]]

    async def _step(self) -> None:
        self.steps += 1
        if self.steps == self.halt_at:
            await self.meanwhile()

    async def pipeline(self, commands: Sequence[Any], **options: Any) -> list[Any]:
        replies: list[Any] = []
        for command in commands:
            await self._step()
            replies += await super().pipeline([command], **options)
        return replies

    async def unlink(self, keys: Sequence[bytes], **options: Any) -> int:
        await self._step()
        return await super().unlink(keys, **options)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_load_that_ends_between_any_two_commands_of_an_invalidation_leaves_nothing(
    two: tuple[Cache, Cache], redis_url: str, change: str
):
    here, _ = two
    stepping = SteppingClient(redis_url, timeout=5)
    there = RedisCache[Any](stepping, lease_seconds=5)
    await CHANGES[change](there)
    longest, left = stepping.steps, []
    for stepping.halt_at in range(1, longest + 2):
        await here.delete_many(["k", "other"])
        old = Load("old")
        early = asyncio.create_task(here.get_or_load("k", old, tags=["t"]))
        await old.started.wait()

        async def end_of_load(old: Load = old, early: "asyncio.Task[Any]" = early) -> None:
            old.finish.set()
            await early

        stepping.meanwhile, stepping.steps = end_of_load, 0
        await CHANGES[change](there)
        if not early.done():  # it took fewer commands
            await end_of_load()
        left.append(await here.get("k"))
    await there.aclose()
    await stepping.aclose()

    assert longest >= 1
    assert set(left) == {"new" if change.startswith("set") else None}


@pytest.mark.parametrize("names", ["both names", "new names"])
async def test_a_value_that_brings_a_tag_while_that_is_invalidated_is_not_to_be_read(redis_url: str, names: str):
    clients = [RedisClient(redis_url, timeout=5), stepping := SteppingClient(redis_url, timeout=5)]
    here, there = (RedisCache[Any](each, lease_seconds=5) for each in clients)
    for cache in (here, there):
        cache.backend.former.in_use = names == "both names"
    await here.get_or_load("k", lambda: loaded("older"), tags=lambda _: ["t"])
    await there.invalidate_tags(["t"])
    longest, left = stepping.steps, []
    for stepping.halt_at in range(1, longest + 2):
        await here.delete("k")
        old = Load("old")
        early = asyncio.create_task(here.get_or_load("k", old, tags=lambda _: ["t"]))
        await old.started.wait()

        async def end_of_load(old: Load = old, early: "asyncio.Task[Any]" = early) -> None:
            old.finish.set()
            await early

        stepping.meanwhile, stepping.steps = end_of_load, 0
        await there.invalidate_tags(["t"])
        await end_of_load()
        left.append(await here.get("k"))
    for cache, client in zip((here, there), clients, strict=True):
        await cache.aclose()
        await client.aclose()

    assert longest == (1 if names == "both names" else 2)
    assert set(left) == {None}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_this_process_loaded_before_an_invalidation_that_failed_is_not_stored(redis_url: str, change: str):
    client = SteppingClient(redis_url, timeout=5)
    here = RedisCache[Any](client, lease_seconds=5)
    old = Load("old")
    early = asyncio.create_task(here.get_or_load("k", old, tags=["t"]))
    await old.started.wait()

    async def fail() -> None:
        raise RedisUnavailableError("it does not answer")

    client.meanwhile, client.halt_at = fail, client.steps + 1
    with pytest.raises(RedisUnavailableError):
        await CHANGES[change](here)
    old.finish.set()

    assert await early == "old"
    assert here.counters.fill_rejected == 1
    assert await here.get("k") is None
    await here.aclose()
    await client.aclose()


@pytest.mark.parametrize("change", CHANGES)
async def test_a_caller_who_comes_after_an_invalidation_elsewhere_does_not_join_the_load_before_it(
    two: tuple[Cache, Cache], change: str
):
    here, there = two
    old = Load("old")
    early = asyncio.create_task(here.get_or_load("k", old, tags=["t"]))
    await old.started.wait()
    await CHANGES[change](there)

    assert await here.get_or_load("k", lambda: loaded("new")) == "new"
    old.finish.set()
    assert await early == "old"
    assert await there.get("k") == "new"


async def test_an_increment_elsewhere_keeps_a_loaded_value_out(two: tuple[Cache, Cache]):
    here, there = two
    old = Load(100)
    early = asyncio.create_task(here.get_or_load("n", old))
    await old.started.wait()
    await there.increment("n")
    old.finish.set()
    await early

    assert await here.get("n") == 1


async def test_a_load_that_begins_while_many_values_are_written_does_not_replace_them(gated: Gated):
    """After whichever of the commands of a write it begins."""
    gates, here, there, unhindered = gated
    passed = 0
    while True:
        key, load = f"k{passed}", Load("old")
        writing = asyncio.create_task(there.set_many({key: "new", "other": "new"}))
        await gates.settle()
        for _ in range(passed):
            if gates.waiting:
                gates.let_through(0)
                await gates.settle()
        if writing.done():
            break
        early = asyncio.create_task(load_freely(here, key, load), context=unhindered)
        await gates.settle()
        while not writing.done():
            gates.let_through(0)
            await gates.settle()
        load.finish.set()
        await early

        assert await asyncio.create_task(here.get(key), context=unhindered) == "new"
        passed += 1

    assert passed >= 2


async def test_an_invalidation_of_other_keys_breaks_nothing(two: tuple[Cache, Cache], client: RedisClient):
    here, there = two
    load = Load("value")
    early = asyncio.create_task(here.get_or_load("k:1", load))
    await load.started.wait()
    await there.delete("k")
    await there.delete_pattern("k:2*")
    await RedisCache[Any](client, namespace="another").clear()
    load.finish.set()
    await early

    assert await there.get("k:1") == "value"


async def test_callers_of_one_process_share_the_load_as_long_as_nobody_invalidates(two: tuple[Cache, Cache]):
    here, _ = two
    load = Load("value")
    callers = [asyncio.create_task(here.get_or_load("k", load)) for _ in range(20)]
    await load.started.wait()
    callers += [asyncio.create_task(here.get_or_load("k", load)) for _ in range(20)]
    await asyncio.sleep(0.05)
    load.finish.set()

    assert await asyncio.gather(*callers) == ["value"] * 40
    assert here.counters.loads == 1


async def test_no_lease_is_left_behind(two: tuple[Cache, Cache], redis_server: RedisServer):
    here, _ = two

    async def fail() -> None:
        assert leases(redis_server)
        raise LookupError("nobody")

    await here.get_or_load("loaded", lambda: loaded(1))
    with pytest.raises(LookupError):
        await here.get_or_load("failed", fail)
    load = Load(1)
    cancelled = asyncio.create_task(here.get_or_load("cancelled", load))
    await load.started.wait()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    async with asyncio.timeout(60):
        while len(here.flights):
            await asyncio.sleep(0.01)

    assert leases(redis_server) == []


async def test_a_load_longer_than_its_lease_renews_it(redis_url: str, redis_server: RedisServer):
    client = RedisClient(redis_url, timeout=5)
    cache = RedisCache[Any](client, lease_seconds=1)

    async def load() -> str:
        await asyncio.sleep(2.5)
        return "value"

    assert await cache.get_or_load("k", load) == "value"
    assert await cache.get("k") == "value"
    assert leases(redis_server) == []
    await client.aclose()


async def test_a_lease_has_a_time_to_live_so_that_a_dead_process_leaves_none(
    two: tuple[Cache, Cache], redis_server: RedisServer
):
    load = Load(1)
    early = asyncio.create_task(two[0].get_or_load("k", load))
    await load.started.wait()

    assert [0 < redis_server.cli("PTTL", lease) <= 5000 for lease in leases(redis_server)] == [True, True]
    load.finish.set()
    await early


@given(st.binary(min_size=1, max_size=30), st.sampled_from(["app", "{app}", "a{b", "a}b", "{}"]))
def test_a_lease_shares_the_slot_of_its_entry_and_leads_back_to_it(key: bytes, prefix: str):
    names = EntryNames(prefix, "ns", FormerNames(b"", ""))
    for each in (key, b"{" + key + b"}", b"a{" + key + b"}b", b"}" + key):
        leases = names.leases(names.prefix + each)

        assert all(key_slot(lease) == key_slot(names.prefix + each) for lease in leases)
        assert all(names.entry(lease) == each for lease in leases)
        assert len(leases) == 2 or b"}" in each or "{" in prefix or "}" in prefix


async def test_a_load_that_began_in_an_outage_stores_nothing_in_redis_after_it(redis_proxy: TcpProxy):
    """Another process may have invalidated meanwhile, and nobody told this one."""
    client = RedisClient(redis_proxy.url, timeout=0.2)
    cache, outage = make_fallback(client)
    redis_proxy.stall()
    await cache.get("found out")
    load = Load("old")
    early = asyncio.create_task(cache.get_or_load("k", load))
    await load.started.wait()
    redis_proxy.resume()
    await recover(cache, outage)
    late = await cache.get_or_load("k", lambda: loaded("new"))
    load.finish.set()

    assert (await early, late) == ("old", "new")
    assert await cache.get("k") == "new"
    await client.aclose()


async def test_a_load_that_began_before_an_outage_is_stored_in_memory_during_it(redis_proxy: TcpProxy):
    client = RedisClient(redis_proxy.url, timeout=0.2)
    cache, outage = make_fallback(client, open_seconds=30)
    load = Load("value")
    early = asyncio.create_task(cache.get_or_load("k", load))
    await load.started.wait()
    redis_proxy.stall()
    load.finish.set()

    assert await early == "value"
    assert not outage.breaker.closed
    assert await cache.get("k") == "value"
    await outage.aclose()
    await client.aclose()


@pytest.mark.parametrize("ticks", range(0, 12, 2))
async def test_a_load_that_is_cancelled_at_once_leaves_no_lease(
    two: tuple[Cache, Cache], redis_server: RedisServer, ticks: int
):
    """The server may have granted it already when nobody wants it any more."""
    here, there = two
    await here.get("connected")
    for number in range(20):
        cancelled = asyncio.create_task(here.get_or_load(f"k{number}", Load(1), lock="distributed"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        await asyncio.sleep(number * 0.0002)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
    async with asyncio.timeout(60):
        while len(here.flights):
            await asyncio.sleep(0.01)

    assert leases(redis_server) == []


async def test_closing_a_cache_leaves_no_lease_of_a_load_that_had_not_begun():
    cache: InMemoryCache[Any] = InMemoryCache()
    early = asyncio.create_task(cache.get_or_load("k", Load(1)))
    await asyncio.sleep(0)
    await cache.aclose()
    await asyncio.gather(early, return_exceptions=True)

    assert early.cancelled()
    assert len(cache.leases) == 0


async def test_closing_a_cache_leaves_no_lease_of_many_whose_loader_ends_slowly():
    cache: InMemoryCache[Any] = InMemoryCache()
    started = asyncio.Event()

    async def load(keys: list[str]) -> dict[str, int]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
        return dict.fromkeys(keys, 1)

    early = asyncio.create_task(cache.get_or_load_many(["a", "b"], load))
    await started.wait()
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    await cache.aclose()

    assert len(cache.leases) == 0


async def load_freely(cache: RedisCache[Any], key: str, load: Callable[[], Awaitable[Any]], **options: Any) -> None:
    """Load a value for every context, past the gates."""
    await cache.loading.obtain(key, load, make_policy(300, {"context": [free], **options}))


async def test_with_a_lock_for_all_processes_who_looked_too_early_does_not_load_again(gated: Gated):
    """Between his look and his lease another process loaded and stored the value."""
    gates, here, there, unhindered = gated
    early = asyncio.create_task(here.get_or_load("k", lambda: loaded("again"), lock="distributed"))
    await gates.settle()
    gates.let_through(0)
    await gates.settle()
    other = load_freely(there, "k", lambda: loaded("once"), lock="distributed")
    await asyncio.create_task(other, context=unhindered)
    gates.let_all_through()

    assert await early == "once"
    assert here.counters.loads == 0
