"""What a failover undoes: with REDIS_WAIT_REPLICAS no invalidation, because it is sent again until replicas have it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent_service.core.breaker import CircuitBreaker
from agent_service.core.errors import ConfigurationError, RedisUnavailableError, RedisUnreplicatedError
from agent_service.core.globs import compile_globs
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.fallback.replay import replay
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.infrastructure.redis.replication import Replication
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.caches import recover
from tests.support.waiting import until

pytestmark = pytest.mark.server  # each starts some of its own

ASKED = Replication(1, 0.1)


@pytest.fixture
def master(own_redis: RedisServer) -> RedisServer:
    own_redis.cli("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    return own_redis


@pytest.fixture
async def link(master: RedisServer) -> AsyncIterator[TcpProxy]:
    """The way from the master to its replica."""
    async with TcpProxy(master.url) as link:
        yield link


@pytest.fixture
async def replica(link: TcpProxy) -> AsyncIterator[RedisServer]:
    port = link.url.rpartition(":")[2].partition("/")[0]
    server = RedisServer(("replicaof", f"127.0.0.1 {port}"))
    await asyncio.to_thread(server.__enter__)
    try:
        await asyncio.to_thread(server.wait_until, "replication", "master_link_status:up")
        yield server
    finally:
        await asyncio.to_thread(server.__exit__)


class Room:
    def __init__(self, proxy: TcpProxy, replication: Replication | None) -> None:
        self.proxy = proxy
        self.client = RedisClient(proxy.url, timeout=2, replication=replication)
        self.outage = Outage(self.client, CircuitBreaker(0.05, max_open_seconds=0.05), Journal())
        self.cache: FallbackCache[str] = FallbackCache(RedisCache(self.client), InMemoryCache(), self.outage)

    async def aclose(self) -> None:
        await self.cache.aclose()
        await self.outage.aclose()
        await self.client.aclose()


MakeRoom = Callable[..., Awaitable[Room]]


@pytest.fixture
async def make_room(master: RedisServer, replica: RedisServer) -> AsyncIterator[MakeRoom]:
    async with TcpProxy(master.url) as proxy:
        rooms = []

        async def make(replication: Replication | None = ASKED) -> Room:
            rooms.append(Room(proxy, replication))
            return rooms[-1]

        yield make
        for each in rooms:
            await each.aclose()


INVALIDATIONS: dict[str, Callable[[FallbackCache[str]], Awaitable[object]]] = {
    "delete": lambda cache: cache.delete("k"),
    "delete_many": lambda cache: cache.delete_many(["k", "other"]),
    "delete_pattern": lambda cache: cache.delete_pattern("k*"),
    "invalidate_tags": lambda cache: cache.invalidate_tags(["t"]),
    "clear": lambda cache: cache.clear(),
}


async def prepare(room: Room, replica: RedisServer) -> None:
    await room.cache.set("k", "old", ttl=600, tags=["t"])
    keys = {key async for page in room.client.scan(b"*") for key in page}
    async with asyncio.timeout(60):
        while not keys <= set(replica.cli("KEYS", "*")):
            await asyncio.sleep(0.01)


async def fail_over(room: Room, master: RedisServer, replica: RedisServer) -> None:
    """The replica takes over without what was on its way to it."""
    await asyncio.to_thread(master.kill)
    await asyncio.to_thread(replica.cli, "REPLICAOF", "NO", "ONE")
    room.proxy.lead_to(replica.url)


@pytest.mark.parametrize("invalidation", INVALIDATIONS)
async def test_an_invalidation_that_no_replica_confirmed_outlives_a_failover(
    make_room: MakeRoom, master: RedisServer, link: TcpProxy, replica: RedisServer, invalidation: str
):
    room = await make_room()
    await prepare(room, replica)
    link.stall()

    removed = await INVALIDATIONS[invalidation](room.cache)
    assert removed in {None, True}
    assert await room.cache.get("k") is None
    assert room.outage.breaker.closed
    assert not room.cache.caught_up
    assert room.cache.counters.unreplicated == 1

    await fail_over(room, master, replica)
    assert b"k" in b"".join(replica.cli("KEYS", "*"))
    async with asyncio.timeout(60):
        while await room.cache.get("k") is not None or not room.outage.breaker.closed:
            await asyncio.sleep(0.02)
    assert room.cache.counters.unreplicated == 1


async def test_without_waiting_a_failover_undoes_an_invalidation_and_nothing_is_sent(
    make_room: MakeRoom, master: RedisServer, link: TcpProxy, replica: RedisServer
):
    room = await make_room(None)
    await prepare(room, replica)
    master.cli("CONFIG", "RESETSTAT")
    link.stall()
    await room.cache.delete("k")
    assert room.cache.caught_up
    assert b"cmdstat_wait" not in master.cli("INFO", "commandstats")

    await fail_over(room, master, replica)
    await room.cache.get("k")
    await recover(room.cache, room.outage)
    assert await room.cache.get("k") == "old"


async def test_a_replica_that_hangs_confirms_nothing(make_room: MakeRoom, replica: RedisServer):
    room = await make_room()
    await prepare(room, replica)
    replica.stop()
    assert await room.cache.delete("k")
    assert not room.cache.caught_up
    replica.cont()
    await until(lambda: room.cache.caught_up)


async def test_what_was_not_confirmed_is_sent_again_until_it_is(
    make_room: MakeRoom, link: TcpProxy, replica: RedisServer, caplog: pytest.LogCaptureFixture
):
    room = await make_room()
    await prepare(room, replica)
    link.stall()
    for _ in range(3):
        await room.cache.delete("k")
    assert len(room.outage.journal) <= 1
    assert sum("confirmed an invalidation" in each.message for each in caplog.records) == 1
    link.resume()

    await until(lambda: room.cache.caught_up)
    assert len(room.outage.journal) == 0
    await until(lambda: replica.cli("EXISTS", "agent_service:default:k") == 0)
    assert await room.cache.delete("k") is False
    assert room.cache.caught_up


async def test_a_repeated_invalidation_that_finds_nothing_is_not_taken_for_confirmed(
    make_room: MakeRoom, link: TcpProxy, replica: RedisServer
):
    room, other = await make_room(), await make_room()
    await prepare(room, replica)
    link.stall()
    await room.cache.delete("k")

    assert await other.cache.delete("k") is False
    assert not other.cache.caught_up
    link.resume()
    await until(lambda: room.cache.caught_up and other.cache.caught_up)


async def test_a_recovery_does_not_wait_for_replicas_that_are_gone(
    make_room: MakeRoom, master: RedisServer, replica: RedisServer
):
    room = await make_room()
    await prepare(room, replica)
    await fail_over(room, master, replica)
    await room.cache.get("k")
    await room.cache.delete("k")

    await recover(room.cache, room.outage)
    assert await room.cache.get("k") is None
    assert not room.cache.caught_up


async def test_wherever_a_replay_breaks_off_what_was_not_confirmed_is_still_owed(
    make_room: MakeRoom, link: TcpProxy, replica: RedisServer
):
    room = await make_room(Replication(1, 0.01))
    link.stall()
    globs = compile_globs(["a*"])
    assert globs is not None
    broken_off = 0
    for total in range(1, 900, 30):
        journal = Journal()
        journal.invalidate_tags("default", ["t"])
        journal.invalidate_matching("default", globs)
        journal.invalidate("default", ["k"])
        (left,) = journal.take().values()
        room.proxy.cut_after(total)
        try:
            left = await replay(room.cache.backend.redis, left, journal)
        except RedisUnavailableError:
            broken_off += 1
        assert [list(left.tags), list(left.patterns), list(left.keys)] == [["t"], ["a*"], ["k"]]
    assert broken_off > 5
    room.proxy.cut_after(1_000_000)


async def test_a_recovery_replays_what_was_being_sent_again_as_the_outage_began(
    make_room: MakeRoom, link: TcpProxy, replica: RedisServer
):
    room, other = await make_room(), RedisClient(replica.url)
    await prepare(room, replica)
    old = await other.get(b"agent_service:default:k")
    assert old is not None
    link.stall()
    await room.cache.delete("k")
    room.proxy.hold()
    await until(lambda: not len(room.outage.journal))
    room.outage.failed(RedisUnavailableError("another operation had no answer"))
    await room.client.execute("SET", b"agent_service:default:k", old)  # as a replica that took over has it

    await recover(room.cache, room.outage)
    assert await room.cache.get("k") is None
    await other.aclose()


async def test_a_repeated_pattern_that_finds_nothing_is_not_taken_for_confirmed(
    make_room: MakeRoom, master: RedisServer, link: TcpProxy, replica: RedisServer
):
    room = await make_room()
    await prepare(room, replica)
    link.stall()
    assert await room.cache.delete_pattern("k*") == 1
    assert await room.cache.delete_pattern("k*") == 0
    assert room.cache.counters.unreplicated == 2
    sent = waits(master)
    await until(lambda: waits(master) >= sent + 2)
    assert not room.cache.caught_up
    link.resume()
    await until(lambda: room.cache.caught_up)


def waits(server: RedisServer) -> int:
    """Return how often a server was asked to wait for its replicas."""
    stats = server.cli("INFO", "commandstats").partition(b"cmdstat_wait:calls=")[2]
    return int(stats.partition(b",")[0] or 0)


async def test_a_full_server_is_no_outage_because_an_invalidation_waits_for_replicas(
    make_room: MakeRoom, master: RedisServer, replica: RedisServer
):
    room = await make_room()
    await prepare(room, replica)
    master.cli("CONFIG", "SET", "maxmemory", 1)
    assert await room.cache.delete("k")
    assert room.outage.breaker.closed
    assert not room.cache.caught_up
    assert await room.cache.get("k") is None

    master.cli("CONFIG", "SET", "maxmemory", 0)
    await until(lambda: room.cache.caught_up)
    assert room.outage.breaker.closed


async def test_a_write_that_a_full_server_refuses_is_false_and_what_it_removed_is_sent_again(
    make_room: MakeRoom, master: RedisServer, replica: RedisServer
):
    room = await make_room()
    await prepare(room, replica)
    master.cli("CONFIG", "SET", "maxmemory", 1)
    assert await room.cache.set("k", "new") is False
    assert await room.cache.get("k") is None
    assert room.cache.counters.errors == 1
    assert not room.cache.caught_up
    assert room.outage.breaker.closed

    master.cli("CONFIG", "SET", "maxmemory", 0)
    await until(lambda: room.cache.caught_up)


async def test_nothing_is_sent_again_after_closing(make_room: MakeRoom, link: TcpProxy, replica: RedisServer):
    room = await make_room(Replication(1, 0.5))
    await prepare(room, replica)
    link.stall()
    removing = asyncio.create_task(room.cache.delete("k"))
    await asyncio.sleep(0.1)
    await room.outage.aclose()
    before = asyncio.all_tasks()
    assert await removing
    assert asyncio.all_tasks() <= before


async def test_a_cache_without_memory_behind_it_raises_with_the_result(
    make_room: MakeRoom, master: RedisServer, link: TcpProxy, replica: RedisServer
):
    room = await make_room(Replication(1, 1))
    cache: RedisCache[str] = RedisCache(room.client)
    await cache.set("k", "v")
    assert await cache.delete("k") is True
    await cache.set("k", "v")
    link.stall()

    with pytest.raises(RedisUnreplicatedError, match="0 of 1 replicas") as caught:
        await cache.delete("k")
    assert caught.value.result == 1
    assert await cache.get("k") is None
    link.resume()
    await cache.aclose()


async def test_the_settings_are_handed_on_and_what_cannot_be_is_refused(
    master: RedisServer, replica: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", master.url)
    monkeypatch.setenv("REDIS_WAIT_REPLICAS", "1")
    monkeypatch.setenv("REDIS_WAIT_TIMEOUT", "0.2")
    reset_settings()
    cache = await get_cache("replicated")
    await cache.set("k", "v")
    assert await cache.delete("k")
    assert (await get_redis_manager()).client.replication == (1, 0.2)
    assert b"cmdstat_wait" in master.cli("INFO", "commandstats")
    await close_cache()
    reset_settings()

    with pytest.raises(ConfigurationError, match="below REDIS_TIMEOUT"):
        RedisClient(master.url, timeout=0.1, replication=ASKED)
    with pytest.raises(ConfigurationError, match="cluster"):
        RedisClient("redis+cluster://127.0.0.1:1", replication=ASKED)
