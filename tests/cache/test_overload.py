"""One process asks more at once than its connections carry: Redis is well, and so is what caches say of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_service.core.breaker import BreakerState
from agent_service.core.errors import RedisBusyError
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.caches import make_fallback, recover
from tests.support.waiting import until

MANY = 600
TIMEOUT = 0.5
"""The default of REDIS_TIMEOUT."""
ROUND_TRIP = 0.08
"""Seconds. Fifty connections need longer than the timeout for so many operations."""

Pair = tuple[FallbackCache[Any], Outage]


@pytest.fixture
async def far_away(redis_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(redis_url) as proxy:
        proxy.delay(ROUND_TRIP)
        yield proxy


@pytest.fixture
async def default_client(far_away: TcpProxy) -> AsyncIterator[RedisClient]:
    client = RedisClient(far_away.url, timeout=TIMEOUT)
    yield client
    await client.aclose()


@pytest.fixture
async def pair(default_client: RedisClient) -> AsyncIterator[Pair]:
    cache, outage = make_fallback(default_client, lease_seconds=600)
    yield cache, outage
    await cache.aclose()
    await outage.aclose()


@pytest.fixture
async def opened(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What opened the breaker; it must stay empty."""
    reasons: list[Exception] = []
    failed = pair[1].failed

    def note(exc: Any) -> None:
        reasons.append(exc)
        failed(exc)

    monkeypatch.setattr(pair[1], "failed", note)
    return reasons


async def load_all(cache: Any, number: int) -> int:
    """Miss so many keys at once, and give how many loads ran."""
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        return "loaded"

    values = await asyncio.gather(*(cache.get_or_load(f"k{n}", load) for n in range(number)))
    assert values == ["loaded"] * number
    return loads


async def test_hundreds_of_misses_at_once_are_loaded_once_and_kept(pair: Pair, opened: list[Exception]):
    cache, outage = pair

    assert await load_all(cache, MANY) == MANY
    assert opened == []
    assert outage.breaker.state is BreakerState.CLOSED
    assert len(await cache.get_many([f"k{n}" for n in range(MANY)])) == MANY
    assert await load_all(cache, MANY) == 0


async def test_hundreds_of_misses_before_memory_open_nothing(
    default_client: RedisClient, pair: Pair, opened: list[Exception]
):
    far, outage = pair
    feed = NearFeed(default_client)
    cache: TieredCache[Any] = TieredCache(far, feed)
    await until(lambda: feed.clock() < float("inf"))

    assert await load_all(cache, MANY) == MANY
    assert opened == []
    assert outage.breaker.state is BreakerState.CLOSED
    await cache.aclose()
    await feed.aclose()


@pytest.mark.parametrize("what", ["get", "get_many", "set", "delete", "exists", "ttl", "invalidate_tags", "expire"])
async def test_hundreds_of_operations_at_once_open_nothing(what: str, pair: Pair, opened: list[Exception]):
    cache, outage = pair
    operations: dict[str, Callable[[int], Awaitable[object]]] = {
        "get": lambda n: cache.get(f"k{n}"),
        "get_many": lambda n: cache.get_many([f"k{n}", f"k{n + 1}"]),
        "set": lambda n: cache.set(f"k{n}", n),
        "delete": lambda n: cache.delete(f"k{n}"),
        "exists": lambda n: cache.exists(f"k{n}"),
        "ttl": lambda n: cache.ttl(f"k{n}"),
        "invalidate_tags": lambda n: cache.invalidate_tags([f"t{n}"]),
        "expire": lambda n: cache.expire(f"k{n}", 60),
    }

    await asyncio.gather(*(operations[what](n) for n in range(MANY)))

    assert opened == []
    assert outage.breaker.state is BreakerState.CLOSED
    assert len(outage.journal) == 0
    if what == "set":
        assert await cache.get_many([f"k{n}" for n in range(MANY)]) == {f"k{n}": n for n in range(MANY)}


async def test_hundreds_of_increments_at_once_are_all_counted_in_redis(pair: Pair, opened: list[Exception]):
    cache, outage = pair

    counts = await asyncio.gather(*(cache.increment("n") for _ in range(MANY)))

    assert sorted(counts) == list(range(1, MANY + 1))
    assert await cache.get("n") == MANY
    assert opened == []
    assert len(outage.journal) == 0


async def test_a_read_that_never_gets_its_turn_is_a_miss_and_no_outage(redis_proxy: TcpProxy):
    """The only connection is busy all the time, and Redis answers all the time."""
    client = RedisClient(redis_proxy.url, timeout=TIMEOUT, max_connections=1)
    cache, outage = make_fallback(client)
    await cache.set("k", "value")
    redis_proxy.delay(0.02)
    writes = [asyncio.create_task(cache.set(f"w{n}", n)) for n in range(200)]
    await asyncio.sleep(0)
    asked = time.monotonic()

    assert await cache.lookup("k") is MISS
    assert time.monotonic() - asked >= TIMEOUT
    assert not all(write.done() for write in writes)
    with pytest.raises(RedisBusyError, match="start fewer"):
        await cache.backend.redis.read("k")
    assert outage.breaker.state is BreakerState.CLOSED
    redis_proxy.delay(0)
    await asyncio.gather(*writes)
    assert await cache.get("k") == "value"
    await cache.aclose()
    await client.aclose()


async def test_a_load_whose_lease_never_gets_its_turn_gives_its_value(redis_proxy: TcpProxy):
    client = RedisClient(redis_proxy.url, timeout=TIMEOUT, max_connections=1)
    cache, outage = make_fallback(client, lease_seconds=0.2)
    await cache.set("w", 0)
    redis_proxy.delay(0.02)
    writes = [asyncio.create_task(cache.set(f"w{n}", n)) for n in range(200)]
    await asyncio.sleep(0)

    async def load() -> str:
        return "loaded"

    assert await cache.get_or_load("k", load) == "loaded"
    assert not all(write.done() for write in writes)
    assert outage.breaker.state is BreakerState.CLOSED
    redis_proxy.delay(0)
    await asyncio.gather(*writes)
    assert await cache.lookup("k") is MISS, "nobody knows whether it was invalidated meanwhile"
    await cache.aclose()
    await client.aclose()


async def test_a_server_that_hangs_is_found_out_although_thousands_wait(own_redis: RedisServer):
    client = RedisClient(own_redis.url, timeout=TIMEOUT)
    cache, outage = make_fallback(client)
    await cache.set("k", "value")
    own_redis.stop()
    started = time.monotonic()
    many = 2000
    try:
        await asyncio.gather(*(cache.set(f"w{n}", n) for n in range(many)))
        took = time.monotonic() - started
    finally:
        own_redis.cont()

    assert not outage.breaker.closed
    assert took < many / 50 * TIMEOUT / 2, "not fifty at a time"
    assert len(outage.journal) == many
    await recover(cache, outage)
    assert len(outage.journal) == 0
    await cache.aclose()
    await client.aclose()


async def test_a_process_that_stands_still_blames_nobody(pair: Pair, opened: list[Exception]):
    cache, outage = pair
    await cache.set("k", "value")

    async def stand_still() -> None:
        for _ in range(3):
            time.sleep(2 * TIMEOUT)  # noqa: ASYNC251 - what a handler that computes does to the loop
            await asyncio.sleep(0)

    reads = [asyncio.create_task(cache.get("k")) for _ in range(20)]
    writes = [asyncio.create_task(cache.increment("n")) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
    await stand_still()

    assert await asyncio.gather(*reads) == ["value"] * 20
    assert sorted(await asyncio.gather(*writes)) == list(range(1, 21))
    assert opened == []
    assert outage.breaker.state is BreakerState.CLOSED


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["load", "increment"])
async def test_twenty_thousand_at_once_open_nothing(what: str, pair: Pair, opened: list[Exception], far_away: TcpProxy):
    far_away.delay(0)
    cache, _ = pair
    if what == "load":
        assert await load_all(cache, 20_000) == 20_000
    else:
        await asyncio.gather(*(cache.increment("n") for _ in range(20_000)))
        assert await cache.get("n") == 20_000
    assert opened == []
