"""A process that is too busy to read is no outage: what has arrived is looked at before a deadline counts."""

import asyncio
import random
import time

import pytest

from agent_service.core.breaker import CircuitBreaker
from agent_service.core.errors import LoadTimeoutError, RedisOperationError, RedisUnavailableError
from agent_service.core.turns import Turns
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.redis.conftest import Connect
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking, until

MEGABYTE = 1_000_000


class BusyLoop:
    """Keeps the event loop busy, so that each of its rounds takes long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            time.sleep(self._seconds)  # noqa: ASYNC251 - what a handler that computes does to the loop
            await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def test_a_large_reply_is_read_to_its_end_by_a_loop_that_is_busy_all_the_time(redis_url: str, connect: Connect):
    client = connect(redis_url, timeout=0.1)
    keys = [b"%d" % number for number in range(15)]
    await client.set_many(dict.fromkeys(keys[:5], b"x" * MEGABYTE))
    await client.set_many(dict.fromkeys(keys[5:], b"x" * MEGABYTE))

    async with BusyLoop(0.005):
        values = await client.get_many(keys)

    assert [len(each or b"") for each in values] == [MEGABYTE] * 15


async def test_a_large_value_is_sent_to_its_end_by_a_loop_that_is_busy_all_the_time(redis_url: str, connect: Connect):
    client = connect(redis_url, timeout=0.1)

    async with BusyLoop(0.005):
        await client.execute("SET", b"k", b"x" * 30 * MEGABYTE)

    assert await client.execute("STRLEN", b"k") == 30 * MEGABYTE


async def test_a_large_reply_of_a_cluster_is_read_to_its_end_by_a_busy_loop(cluster_url: str, connect: Connect):
    client = connect(cluster_url, timeout=0.2)
    keys = [b"{k}%d" % number for number in range(12)]
    for key in keys:
        await client.execute("SET", key, b"x" * MEGABYTE)

    async with BusyLoop(0.005):
        values = await client.get_many(keys)

    assert [len(each or b"") for each in values] == [MEGABYTE] * 12


async def test_a_server_that_hangs_is_found_out_by_a_busy_loop_too(own_redis: RedisServer, connect: Connect):
    client = connect(own_redis.url, timeout=0.1)
    await client.ping()
    own_redis.stop()

    async with BusyLoop(0.001):
        with pytest.raises(RedisUnavailableError, match="answer within"):
            await client.get_many([b"k"])
    own_redis.cont()


async def test_turns_begin_anew_while_something_lies_there_but_not_for_ever():
    left = 3

    def arrived() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Turns(0.02, arrived):
            await asyncio.sleep(60)
    assert (left, time.monotonic() - started >= 0.07) == (-1, True)

    with pytest.raises(TimeoutError):
        async with Turns(0.001, lambda: True) as scope:
            await asyncio.sleep(60)
    assert scope.expired


@pytest.mark.parametrize("seconds", [0.005, 0.3])
async def test_turns_take_about_as_long_as_they_say(seconds: float):
    started = time.monotonic()
    async with ticking() as ticks:
        with pytest.raises(TimeoutError):
            async with Turns(seconds):
                await asyncio.sleep(60)

    assert time.monotonic() - started > seconds * 0.7
    assert ticks.seconds < seconds + 2


async def test_the_hard_timeout_of_a_load_counts_no_stall_of_the_loop():
    cache = InMemoryCache[str]()

    async def load() -> str:
        await asyncio.sleep(0.001)
        time.sleep(0.3)  # noqa: ASYNC251 - somebody else's handler, say
        await asyncio.sleep(0.001)
        return "loaded"

    assert await cache.get_or_load("k", load, hard_timeout=0.2) == "loaded"
    with pytest.raises(LoadTimeoutError):
        await cache.get_or_load("other", lambda: asyncio.sleep(60, "late"), hard_timeout=0.02)
    await cache.aclose()


async def test_a_stream_that_waits_for_entries_survives_a_stall(own_redis: RedisServer, connect: Connect):
    client, patient = connect(own_redis.url, timeout=0.05), connect(own_redis.url, timeout=30)
    changes: list[bool] = []
    stream = client.notifications(b"s", lambda: changes.append(stream.live))
    stream.start()
    await until(lambda: stream.live)
    for _ in range(3):
        time.sleep(0.4)  # noqa: ASYNC251 - a stall
        await patient.execute("XADD", b"s", "*", b"a", b"b")
        await asyncio.sleep(0.01)
    await until(lambda: len(changes) > 1)

    assert all(changes)
    await stream.aclose()


class Traffic:
    """Caches of every kind under load, on a loop that stalls at random; what Redis failed at is noted."""

    def __init__(self, client: RedisClient) -> None:
        self.failures: list[str] = []
        self.operations = 0
        self.outage = Outage(client, CircuitBreaker(0.5), Journal())
        self._failed = self.outage.failed
        self.outage.failed = self._note  # type: ignore[method-assign]
        self.feed = NearFeed(client)
        self.plain: FallbackCache[str] = FallbackCache(RedisCache(client), InMemoryCache(), self.outage)
        near: FallbackCache[str] = FallbackCache(
            RedisCache(client, namespace="near"), InMemoryCache(namespace="near"), self.outage
        )
        self.tiered = TieredCache(near, self.feed)

    def _note(self, exc: RedisOperationError) -> None:
        self.failures.append(str(exc))
        self._failed(exc)

    async def run(self, seconds: float, *, tasks: int = 30, stalls: tuple[float, float]) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(self._stall(end, stalls), *(self._work(number, end) for number in range(tasks)))

    async def _stall(self, end: float, stalls: tuple[float, float]) -> None:
        chance = random.Random(1)
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0, 0.5))
            time.sleep(chance.uniform(*stalls))  # noqa: ASYNC251 - a stall

    async def _work(self, number: int, end: float) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            cache: BaseCache[str] = self.tiered if number % 2 else self.plain
            key = f"k{chance.randrange(50)}"
            match chance.randrange(7):
                case 0:
                    await cache.set(key, "v" * chance.choice([10, 1000, 300_000]))
                case 1:
                    await cache.get_many([f"k{each}" for each in range(50)])
                case 2:
                    await cache.get_or_load(key, lambda: asyncio.sleep(0.01, "loaded"), lock="distributed")
                case 3:
                    await cache.increment(f"n{key}")
                case 4:
                    await cache.delete(key)
                case 5:
                    await cache.delete_pattern("k1*")
                case _:
                    await cache.get(key)
            self.operations += 1

    async def aclose(self) -> None:
        await self.tiered.aclose()
        await self.plain.aclose()
        await self.feed.aclose()
        await self.outage.aclose()


async def check(server: RedisServer, connect: Connect, seconds: float, stalls: tuple[float, float]) -> None:
    traffic = Traffic(connect(server.url, timeout=0.5))
    await traffic.run(seconds, stalls=stalls)
    assert traffic.failures == []
    assert traffic.outage.breaker.closed
    assert traffic.operations > seconds * 10
    assert traffic.feed._stream.reconnects == 0

    server.stop()
    try:
        started = time.monotonic()
        await traffic.run(1.5, tasks=3, stalls=(0.01, 0.02))
        assert not traffic.outage.breaker.closed
        assert traffic.failures
        assert time.monotonic() - started < 30
    finally:
        server.cont()
    await traffic.aclose()


async def test_a_loop_that_stalls_is_no_outage_and_a_server_that_hangs_is_one(own_redis: RedisServer, connect: Connect):
    await check(own_redis, connect, 5, (0.1, 1.2))


@pytest.mark.faults
async def test_a_loop_that_stalls_for_a_minute_is_no_outage(own_redis: RedisServer, connect: Connect):
    await check(own_redis, connect, 60, (0.1, 3))
