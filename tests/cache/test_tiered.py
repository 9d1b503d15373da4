"""Memory in front of Redis: the one contract, coherence, and what becomes of copies when nothing is heard any more."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent_service.core.errors import CacheValueError, RedisUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.factory import get_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.testing.contracts import CacheContract
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.caches import make_fallback
from tests.support.waiting import until


@dataclass
class Tiers:
    """A tiered cache, and another process that shares its Redis."""

    cache: TieredCache[Any]
    far: RedisCache[Any]
    feed: NearFeed
    elsewhere: RedisCache[Any]

    async def near(self, key: str) -> Any:
        """Read until the value comes from memory, and give it."""
        async with asyncio.timeout(60):
            while True:
                found = await self.cache.backend.read(key)
                assert found is not None
                if found.level == "l1":
                    return found.value
                await asyncio.sleep(0.005)

    async def level(self, key: str) -> str | None:
        found = await self.cache.backend.read(key)
        return None if found is None else found.level


async def trusted(feed: NearFeed) -> None:
    await until(lambda: feed.clock() < float("inf"))


class TestTiered(CacheContract):
    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        feed = NearFeed(client)
        cache: TieredCache[Any] = TieredCache(RedisCache(client), feed)
        await trusted(feed)
        yield cache
        await cache.aclose()
        await feed.aclose()

    @pytest.fixture
    async def neighbour(self, client: RedisClient) -> ICache:
        return RedisCache(client, namespace="neighbour")


class TestTieredOverAFallback(CacheContract):
    @pytest.fixture
    async def cache(self, client: RedisClient) -> AsyncIterator[ICache]:
        far, outage = make_fallback(client, namespace="a:b%{c}")
        feed = NearFeed(client)
        cache: TieredCache[Any] = TieredCache(far, feed)
        await trusted(feed)
        yield cache
        await cache.aclose()
        await feed.aclose()
        assert outage.breaker.closed, "Redis was up all the time"

    @pytest.fixture
    async def neighbour(self, client: RedisClient) -> ICache:
        return RedisCache(client, namespace="neighbour")


@pytest.fixture
async def tiers(redis_url: str) -> AsyncIterator[Tiers]:
    here, there = RedisClient(redis_url, timeout=5), RedisClient(redis_url, timeout=5)
    feed = NearFeed(here, max_staleness=5)
    far: RedisCache[Any] = RedisCache(here)
    tiers = Tiers(TieredCache(far, feed), far, feed, RedisCache(there))
    await trusted(feed)
    yield tiers
    await tiers.cache.aclose()
    await feed.aclose()
    await here.aclose()
    await there.aclose()


async def test_the_second_read_of_an_entry_asks_nobody(tiers: Tiers, redis_server: RedisServer):
    await tiers.cache.set("k", {"n": 1})
    await tiers.near("k")
    far_hits = tiers.cache.counters.hits

    def reads() -> list[bytes]:
        return re.findall(rb"cmdstat_mget:calls=(\d+)", redis_server.cli("INFO", "commandstats"))

    before = reads()

    assert await tiers.cache.get("k") == {"n": 1}
    assert reads() == before != []
    assert tiers.cache.counters.hits == far_hits
    assert tiers.cache.counters.snapshot()["l1_hits"] > 0


async def test_a_copy_belongs_to_its_reader(tiers: Tiers):
    await tiers.cache.set("k", {"n": [1]})
    first = await tiers.near("k")
    first["n"].append(2)

    assert await tiers.near("k") == {"n": [1]}


CHANGES: dict[str, Callable[[RedisCache[Any], RedisServer], Any]] = {
    "set": lambda cache, _: cache.set("k", "new"),
    "delete": lambda cache, _: cache.delete("k"),
    "delete_pattern": lambda cache, _: cache.delete_pattern("k*"),
    "expire": lambda cache, _: cache.expire("k", 0.01),
    "a tag": lambda cache, _: cache.invalidate_tags(["t"]),
    "clear": lambda cache, _: cache.clear(),
    "a load": lambda cache, _: cache.get_or_load("k", lambda: asyncio.sleep(0, "new")),
    "DEL": lambda _, server: asyncio.to_thread(server.cli, "DEL", "agent_service:default:k"),
    "FLUSHALL": lambda _, server: asyncio.to_thread(server.cli, "FLUSHALL"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_another_process_changes_is_seen(tiers: Tiers, redis_server: RedisServer, change: str):
    await tiers.elsewhere.set("k", "old", tags=["t"])
    await tiers.elsewhere.set("other", "stays")
    assert await tiers.near("k") == "old"
    if change == "a load":
        await tiers.elsewhere.delete("k")
    await CHANGES[change](tiers.elsewhere, redis_server)

    async with asyncio.timeout(60):
        while await tiers.cache.get("k") == "old":
            await asyncio.sleep(0.001)
    assert await tiers.cache.get("k") == (await tiers.elsewhere.get("k"))


@pytest.mark.parametrize("change", ["set", "delete", "delete_many", "pattern", "tags", "clear", "expire", "increment"])
async def test_what_this_process_changes_is_seen_at_once(tiers: Tiers, change: str):
    cache = tiers.cache
    for round_ in range(30):
        await cache.set("k", round_, tags=["t"])
        assert await tiers.near("k") == round_
        wanted: object = None
        match change:
            case "set":
                await cache.set("k", wanted := "new")
            case "delete":
                await cache.delete("k")
            case "delete_many":
                await cache.delete_many(["k", "other"])
            case "pattern":
                await cache.delete_pattern("[k]")
            case "tags":
                await cache.invalidate_tags(["t"])
            case "clear":
                await cache.clear()
            case "expire":
                await cache.expire("k", 0)
            case _:
                wanted = await cache.increment("k", 5)

        assert await cache.get("k") == wanted


async def test_a_copy_lives_no_longer_than_the_entry(tiers: Tiers):
    copied = False
    while not copied:  # which a busy machine may be too slow for within the second
        await tiers.cache.set("k", "value", ttl=1)
        stored = time.monotonic()
        while (found := await tiers.cache.backend.read("k")) is not None and not copied:
            copied = found.level == "l1"
            await asyncio.sleep(0)
    asked = stored
    while await tiers.cache.get("k") is not None:
        assert asked - stored < 1.05, "a read that began later was given a copy"
        await asyncio.sleep(0.005)
        asked = time.monotonic()


async def test_a_copy_lives_no_longer_than_the_entry_however_slow_the_read(redis_url: str, redis_proxy: TcpProxy):
    slow, quick = RedisClient(redis_proxy.url, timeout=5), RedisClient(redis_url, timeout=5)
    feed = NearFeed(quick, max_staleness=5)
    cache: TieredCache[Any] = TieredCache(RedisCache(slow), feed)
    await trusted(feed)
    while not cache.counters.l1.hits:  # on a busy machine the first value may expire before it is copied
        redis_proxy.delay(0)
        await cache.set("k", "value", ttl=1.5)
        stored = time.monotonic()
        redis_proxy.delay(0.2)
        asked, served = time.monotonic(), stored
        while await cache.get("k") is not None:
            served = asked
            await asyncio.sleep(0.005)
            asked = time.monotonic()
        assert served - stored < 1.5

    await cache.aclose()
    await feed.aclose()
    await slow.aclose()
    await quick.aclose()


async def test_a_copy_of_what_never_expires_is_dropped_as_well(tiers: Tiers):
    await tiers.elsewhere.set("never", "old", ttl=NEVER)
    await tiers.near("never")
    await tiers.elsewhere.delete("never")

    async with asyncio.timeout(60):
        while await tiers.cache.get("never") is not None:
            await asyncio.sleep(0.001)
    await tiers.elsewhere.clear()  # and with it the token, which would not expire either


async def test_a_copy_of_an_entry_with_several_tags_goes_with_any_of_them(tiers: Tiers):
    for tag in ("a", "b"):
        await tiers.elsewhere.set("k", "old", tags=["a", "b"])
        await tiers.near("k")
        await tiers.elsewhere.invalidate_tags([tag])

        async with asyncio.timeout(60):
            while await tiers.cache.get("k") is not None:
                await asyncio.sleep(0.001)


async def test_a_read_that_began_before_a_change_leaves_no_copy(redis_url: str, redis_proxy: TcpProxy):
    """The reply is held back by the proxy while another process deletes the key."""
    slow, quick = RedisClient(redis_proxy.url, timeout=5), RedisClient(redis_url, timeout=5)
    feed = NearFeed(quick, max_staleness=5)
    cache: TieredCache[Any] = TieredCache(RedisCache(slow), feed)
    elsewhere: RedisCache[Any] = RedisCache(quick)
    await trusted(feed)
    await elsewhere.set("k", "old")
    await cache.exists("k")
    redis_proxy.delay(0.2)
    early = asyncio.create_task(cache.get("k"))
    await asyncio.sleep(0.1)
    await elsewhere.delete("k")

    assert await early == "old"
    assert await cache.get("k") is None
    await cache.aclose()
    await feed.aclose()
    await slow.aclose()
    await quick.aclose()


class HeldUp(RedisClient):
    """A client whose removals wait until they may go."""

    def hold(self) -> None:
        self.held, self.may_go = asyncio.Event(), asyncio.Event()

    async def pipeline(self, commands: Any, **options: Any) -> Any:
        if commands[-1][0] == "UNLINK":
            self.held.set()
            await self.may_go.wait()
        return await super().pipeline(commands, **options)


async def test_a_read_during_a_change_of_this_process_leaves_no_copy(redis_url: str, redis_proxy: TcpProxy):
    """Not even while the push is late: the way of the pushes is stalled, and trust not yet over."""
    client, pushed = HeldUp(redis_url, timeout=5), RedisClient(redis_proxy.url, timeout=5)
    client.hold()
    feed = NearFeed(pushed, max_staleness=30)
    cache: TieredCache[Any] = TieredCache(RedisCache(client), feed)
    await trusted(feed)
    await RedisCache[Any](client).set("k", "old")
    await asyncio.sleep(0.05)
    redis_proxy.stall()
    change = asyncio.create_task(cache.delete("k"))
    await client.held.wait()
    assert await cache.get("k") == "old"
    assert len(cache.backend.near) == 1
    client.may_go.set()
    await change

    assert await cache.get("k") is None
    redis_proxy.resume()
    await cache.aclose()
    await feed.aclose()
    await client.aclose()
    await pushed.aclose()


async def test_a_lost_connection_makes_every_copy_worthless(tiers: Tiers, redis_server: RedisServer):
    await tiers.cache.set("k", "value")
    await tiers.near("k")
    redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    for line in redis_server.cli("CLIENT", "LIST").decode().splitlines():
        fields = dict(part.partition("=")[::2] for part in line.split())
        if "t" in fields["flags"]:
            redis_server.cli("CLIENT", "KILL", "ID", fields["id"])

    async def worthless() -> bool:
        return len(tiers.cache.backend.near) == 0 or await tiers.level("k") == "redis"

    await until(worthless)
    assert await tiers.near("k") == "value"


async def test_no_copy_is_older_than_the_bound_while_redis_hangs(own_redis: RedisServer):
    client = RedisClient(own_redis.url, timeout=0.2)
    far, outage = make_fallback(client)
    feed = NearFeed(client, max_staleness=0.3)
    cache: TieredCache[Any] = TieredCache(far, feed)
    await trusted(feed)
    await cache.set("k", "value")
    await Tiers(cache, RedisCache(client), feed, RedisCache(client)).near("k")
    os.kill(own_redis.pid, signal.SIGSTOP)
    stopped = asked = served = time.monotonic()
    while asked < stopped + 1:
        if cache.backend.near.read("k") is not None:
            served = asked
        await asyncio.sleep(0.005)
        asked = time.monotonic()
    os.kill(own_redis.pid, signal.SIGCONT)

    assert served - stopped <= 0.3
    await cache.aclose()
    await feed.aclose()
    await outage.aclose()
    await client.aclose()


async def test_a_server_that_cannot_push_is_copied_from_for_a_short_while_only(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    own_redis.cli("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-client")
    client = RedisClient(f"redis://limited:secret@127.0.0.1:{own_redis.port}/0", timeout=2)
    feed = NearFeed(client, max_staleness=0.2)
    cache: TieredCache[Any] = TieredCache(RedisCache(client), feed)
    elsewhere: RedisCache[Any] = RedisCache(client)
    await until(lambda: feed.state() == "unsupported")
    await elsewhere.set("k", "old")
    tiers = Tiers(cache, elsewhere, feed, elsewhere)
    await tiers.near("k")
    await elsewhere.set("k", "new")
    asked = changed = time.monotonic()
    while await cache.get("k") == "old":
        assert asked - changed < 0.3, "a read that began later was given the old value"
        await asyncio.sleep(0.005)
        asked = time.monotonic()
    assert "no copy of a value is trusted" in caplog.text
    await cache.aclose()
    await feed.aclose()
    await client.aclose()


async def test_a_decorated_hit_is_served_from_the_copy_and_never_after_it_was_dropped(tiers: Tiers):
    calls = 0

    @cached(cache=tiers.cache, tags=["user:{user}"])
    async def name(user: int) -> str:
        nonlocal calls
        calls += 1
        return f"{user}:{calls}"

    await name(1)
    await tiers.near(name.cache_key(1))
    for _ in range(3):
        assert await name(1) == "1:1"
    counted = tiers.cache.counters.l1.hits
    assert await name(1) == "1:1"
    assert tiers.cache.counters.l1.hits == counted + 1
    await tiers.elsewhere.invalidate_tags(["user:1"])
    async with asyncio.timeout(60):
        while await name(1) == "1:1":
            await asyncio.sleep(0.001)

    assert await name(1) == "1:2"


async def test_the_setting_puts_copies_in_front_of_every_cache(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CACHE_L1_ENABLED", "true")
    reset_settings()

    assert isinstance(await get_cache("a"), TieredCache)
    assert isinstance(await get_cache("a", l1=False), FallbackCache)
    assert await get_cache("a") is await get_cache("a", l1=True)
    manager = await get_redis_manager()
    await until(lambda: manager.get_metrics()["l1"] == "live")


async def test_without_redis_there_is_nothing_to_copy():
    assert await get_cache("a", l1=True) is await get_cache("a")


def test_a_bound_below_one_is_refused(client: RedisClient):
    with pytest.raises(CacheValueError, match="max_entries"):
        TieredCache(RedisCache(client), NearFeed(client), max_entries=0)


async def test_no_copy_of_a_database_that_was_swapped_away_outlives_the_bound(own_redis: RedisServer):
    bound = 0.6
    here, other = RedisClient(own_redis.url, timeout=5), RedisClient(f"{own_redis.url[:-1]}1", timeout=5)
    feed = NearFeed(here, max_staleness=bound)
    cache: TieredCache[str] = TieredCache(RedisCache(here), feed)
    elsewhere: RedisCache[str] = RedisCache(other)
    await elsewhere.set("k", "one")
    await cache.set("k", "zero")
    await trusted(feed)
    for expected in ("zero", "one", "zero"):
        async with asyncio.timeout(60):
            while (found := await cache.backend.read("k")) is None or found.level != "l1":
                await asyncio.sleep(0.005)
        assert found.value == expected

        own_redis.cli("SWAPDB", 0, 1)
        swapped = time.monotonic()
        await until(lambda: len(cache.backend.near) == 0)
        assert time.monotonic() - swapped < bound + 5  # and not for as long as the entry lives

    assert await cache.get("k") == "one"
    await cache.aclose()
    await feed.aclose()
    await here.aclose()
    await other.aclose()


@pytest.mark.parametrize("when", ["live", "down", "starting"])
async def test_closing_redis_alone_ends_what_listens_to_it(
    when: str, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("CACHE_L1_ENABLED", "true")
    reset_settings()
    before = asyncio.all_tasks()
    cache = await get_cache()
    manager = await get_redis_manager()
    if when != "starting":
        await until(lambda: manager.get_metrics()["l1"] == "live")
    if when == "down":
        own_redis.kill()
        await until(lambda: manager.get_metrics()["l1"] == "down")

    await close_redis()

    assert asyncio.all_tasks() == before
    assert manager.get_metrics()["l1"] == "closed"
    assert await cache.get("k") is None


async def test_a_client_that_was_closed_starts_no_stream(redis_url: str):
    client = RedisClient(redis_url)
    await client.aclose()

    with pytest.raises(RedisUnavailableError, match="was closed"):
        NearFeed(client)
