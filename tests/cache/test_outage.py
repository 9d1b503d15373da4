"""Redis goes and comes back; nothing raises, and what was invalidated stays so."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Sequence

import pytest

from agent_service.core.breaker import BreakerState
from agent_service.core.errors import RedisUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import get_redis_manager
from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.caches import Pair, cut, make_fallback, recover
from tests.support.waiting import until


async def test_a_cache_works_when_redis_was_never_there():
    client = RedisClient(f"redis://127.0.0.1:{free_port()}/0")
    cache, outage = make_fallback(client)

    assert await cache.set("a", {"n": 1}) is True
    assert await cache.get("a") == {"n": 1}
    assert await cache.increment("n") == 1
    await outage.aclose()
    await client.aclose()


@pytest.mark.parametrize("how", ["delete", "delete_many", "pattern", "clear", "set", "expire"])
async def test_what_was_invalidated_during_an_outage_is_not_seen_after_it(
    behind_proxy: Pair, redis_proxy: TcpProxy, how: str
):
    cache, outage = behind_proxy
    await cache.set_many({"user:1": "old", "other": "stays"})
    await cut(cache, outage, redis_proxy)
    match how:
        case "delete":
            await cache.delete("user:1")
        case "delete_many":
            await cache.delete_many(["user:1"])
        case "pattern":
            await cache.delete_pattern("user:*")
        case "clear":
            await cache.clear()
        case "set":
            await cache.set("user:1", "written to memory only")
        case _:
            await cache.expire("user:1", 100)
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.lookup("user:1") is MISS
    assert await cache.get("other") == (None if how == "clear" else "stays")
    assert len(outage.journal) == 0


async def test_a_write_that_found_the_outage_out_is_replayed_too(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    await cache.set("a", "old")
    redis_proxy.stall()

    assert await cache.delete("a") is False
    assert not outage.breaker.closed
    redis_proxy.resume()
    await recover(cache, outage)
    assert await cache.lookup("a") is MISS


async def test_what_is_deleted_while_redis_does_not_take_its_value_is_not_kept_in_memory(
    behind_proxy: Pair, redis_proxy: TcpProxy
):
    cache, outage = behind_proxy

    async def load() -> str:
        redis_proxy.stall()
        reads.append(asyncio.create_task(cache.get("found out by this read")))
        await asyncio.sleep(0.1)
        return "old"

    reads: list[asyncio.Task[object]] = []
    loading = asyncio.create_task(cache.get_or_load("a", load))
    await until(lambda: not outage.breaker.closed)
    await cache.delete("a")

    assert await loading == "old"
    assert await cache.lookup("a") is MISS
    await asyncio.gather(*reads)


async def test_increments_during_an_outage_are_added_back(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    await cache.increment("n", 10)
    await cut(cache, outage, redis_proxy)
    for _ in range(5):
        await cache.increment("n")
    await cache.increment("new", 3, ttl=50)
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.get("n") == 15
    assert await cache.get("new") == 3
    left = await cache.ttl("new")
    assert isinstance(left, float)
    assert 40 < left <= 50


@pytest.mark.parametrize("how", ["stands", "expired", "lost its tag", "went by a pattern"])
async def test_increments_of_a_value_that_was_set_during_the_outage_count_only_when_it_is_gone(
    behind_proxy: Pair, redis_proxy: TcpProxy, how: str
):
    cache, outage = behind_proxy
    await cache.increment("n", 10)
    await cut(cache, outage, redis_proxy)
    await cache.set("n", 5, ttl=0.01 if how == "expired" else 60, tags=["t"])
    match how:
        case "expired":
            await asyncio.sleep(0.02)
        case "lost its tag":
            await cache.invalidate_tags(["t"])
        case "went by a pattern":
            await cache.delete_pattern("n*")
    assert await cache.increment("n", 3) == (8 if how == "stands" else 3)
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.get("n") == (None if how == "stands" else 3)


@pytest.mark.parametrize("replays", [1, 2], ids=["replayed at once", "the first replay breaks off"])
async def test_increments_during_a_replay_of_a_value_set_before_are_not_pushed(
    behind_proxy: Pair, redis_proxy: TcpProxy, replays: int
):
    cache, outage = behind_proxy
    await cache.set("n", 1, ttl=60)
    await cut(cache, outage, redis_proxy)
    await cache.set("n", 5, ttl=60)
    counted: list[int] = []
    remove = cache.backend.redis.remove

    async def add_and_remove(keys: Sequence[str]) -> int:
        counted.append(await cache.increment("n", 3, ttl=60))
        if len(counted) < replays:
            raise RedisUnavailableError("cut")
        return await remove(keys)

    cache.backend.redis.remove = add_and_remove  # type: ignore[method-assign] # at that moment
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.lookup("n") is MISS
    assert counted == [8, 11][:replays]
    assert outage.journal.bytes == 0


async def test_reads_during_an_outage_see_this_process_s_own_writes(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    await cache.set("a", "in redis")
    await cut(cache, outage, redis_proxy)

    assert await cache.get("a") is None
    await cache.set("a", "in memory")
    assert await cache.get("a") == "in memory"
    assert [key async for key in cache.scan("*")] == ["a"]


async def test_memory_is_dropped_after_the_outage(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    await cut(cache, outage, redis_proxy)
    await cache.set("a", "first outage")
    redis_proxy.resume()
    await recover(cache, outage)
    await cut(cache, outage, redis_proxy)

    assert await cache.get("a") is None


async def test_an_operation_is_not_held_longer_than_its_deadline(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    redis_proxy.stall()
    started = time.monotonic()
    await asyncio.gather(*(cache.get(f"k{n}") for n in range(100)))
    first = time.monotonic() - started
    started = time.monotonic()
    await asyncio.gather(*(cache.get(f"k{n}") for n in range(10_000)))
    second = time.monotonic() - started

    assert first < 100 * 0.5 / 4, "each waits for a deadline of its own, not for those of others"
    assert second < 100 * 0.5 / 4, "an open breaker asks nobody"


async def test_redis_serves_again_however_much_is_written_and_however_slow_it_is(
    behind_proxy: Pair, redis_proxy: TcpProxy
):
    cache, outage = behind_proxy
    await cut(cache, outage, redis_proxy)
    redis_proxy.resume()
    redis_proxy.delay(0.02)
    stop = asyncio.Event()

    async def write(writer: int) -> int:
        for number in itertools.count(1):
            await cache.delete(f"k{writer}:{number}")
            await cache.increment(f"n{writer}")
            if stop.is_set():
                return number
            await asyncio.sleep(0.001)
        raise AssertionError("never")

    writers = [asyncio.create_task(write(writer)) for writer in range(5)]
    await until(lambda: outage.breaker.closed)
    stop.set()
    written = await asyncio.gather(*writers)

    assert [await cache.get(f"n{writer}") for writer in range(5)] == written


async def test_a_probe_that_fails_opens_the_breaker_again(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    await cut(cache, outage, redis_proxy)
    seen = set()
    async with asyncio.timeout(60):
        while BreakerState.HALF_OPEN not in seen or outage.breaker.state is not BreakerState.OPEN:
            await cache.get("a")
            seen.add(outage.breaker.state)
            await asyncio.sleep(0.01)

    assert seen == {BreakerState.OPEN, BreakerState.HALF_OPEN}


async def test_a_journal_that_overflows_invalidates_the_namespace(redis_proxy: TcpProxy):
    client = RedisClient(redis_proxy.url, timeout=0.2)
    cache, outage = make_fallback(client, limit=5)
    await cache.set_many({f"k{n}": "old" for n in range(20)})
    await cut(cache, outage, redis_proxy)
    for n in range(10):
        await cache.delete(f"k{n}")
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.get_many([f"k{n}" for n in range(20)]) == {}
    await outage.aclose()
    await client.aclose()


async def test_out_of_memory_refuses_a_write_and_removes_what_it_was_to_replace():
    with RedisServer(("maxmemory", "2mb"), ("maxmemory-policy", "noeviction")) as server:
        client = RedisClient(server.url, timeout=2)
        cache, outage = make_fallback(client)
        await cache.set("a", "old")
        server.cli("CONFIG", "SET", "maxmemory", "1")

        assert await cache.set("a", "new") is False
        assert await cache.lookup("a") is MISS
        assert outage.breaker.closed, "reads and deletes still work, so Redis still serves"
        await client.aclose()


async def test_a_read_only_replica_is_an_outage(own_redis: RedisServer):
    client = RedisClient(own_redis.url, timeout=2)
    cache, outage = make_fallback(client)
    await cache.set("a", "old")
    own_redis.cli("REPLICAOF", "127.0.0.1", str(free_port()))

    await cache.delete("a")
    assert outage.breaker.state is not BreakerState.CLOSED
    own_redis.cli("REPLICAOF", "NO", "ONE")
    await recover(cache, outage)
    assert await cache.lookup("a") is MISS
    await client.aclose()


async def test_a_wrong_password_is_an_outage_not_an_exception(own_redis: RedisServer):
    own_redis.cli("CONFIG", "SET", "requirepass", "secret")
    client = RedisClient(f"redis://:wrong@127.0.0.1:{own_redis.port}/0", timeout=2)
    cache, outage = make_fallback(client)

    assert await cache.set("a", 1) is True
    assert await cache.get("a") == 1
    assert not outage.breaker.closed
    await outage.aclose()
    await client.aclose()


async def test_a_server_that_hangs_and_wakes_keeps_invalidations_and_counts(own_redis: RedisServer):
    client = RedisClient(own_redis.url, timeout=0.2)
    cache, outage = make_fallback(client)
    await cache.set_many({f"k{n}": "old" for n in range(50)})
    os.kill(own_redis.pid, signal.SIGSTOP)
    await asyncio.gather(*(cache.delete(f"k{n}") for n in range(50)))
    await asyncio.sleep(0.3)
    os.kill(own_redis.pid, signal.SIGCONT)
    await recover(cache, outage)

    assert await cache.get_many([f"k{n}" for n in range(50)]) == {}
    await client.aclose()


async def test_redis_killed_under_load_raises_nothing_and_brings_nothing_back(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    """Kill -9 under load, write and invalidate, restart: no exception, no invalidated value."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("CACHE_BREAKER_OPEN_SECONDS", "0.05")
    reset_settings()
    cache = await get_cache("load")
    outsider: RedisCache = RedisCache((await get_redis_manager()).client, namespace="load")
    version = dict.fromkeys(range(20), 0)
    stop = asyncio.Event()
    reads = 0

    async def write() -> None:
        while not stop.is_set():
            for n in version:
                version[n] += 1
                await cache.delete(f"k{n}")
            await asyncio.sleep(0.002)

    async def read(n: int) -> None:
        nonlocal reads

        async def load() -> int:
            value = version[n]
            await asyncio.sleep(0.001)
            return value

        while not stop.is_set():
            oldest_allowed = version[n] - 1  # the writer counts first and invalidates then
            found = await cache.get_or_load(f"k{n}", load)
            assert found >= oldest_allowed, f"read {found} after {oldest_allowed} was invalidated"
            reads += 1
            await asyncio.sleep(0.001)

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.sleep(0.3)
            own_redis.kill()
            await asyncio.sleep(0.3)
            own_redis.restart()
            async with asyncio.timeout(60):
                while (await get_redis_manager()).get_metrics()["breaker"] != "closed":
                    await asyncio.sleep(0.01)
        stop.set()

    await asyncio.wait_for(asyncio.gather(write(), disturb(), *(read(n) for n in version)), 60)

    assert reads > 100
    metrics = (await get_redis_manager()).get_metrics()
    assert metrics["journal_length"] == 0
    assert metrics["metrics"]["load:errors"] > 0
    await cache.set("after", 1)
    assert await outsider.get("after") == 1


async def test_get_cache_works_with_redis_down_at_the_start_and_uses_it_when_it_comes(monkeypatch: pytest.MonkeyPatch):
    with RedisServer() as server:
        server.kill()
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("CACHE_BREAKER_OPEN_SECONDS", "0.05")
        reset_settings()
        cache = await get_cache()

        assert await cache.set("key", "value") is True
        assert await cache.get("key") == "value"
        server.restart()
        manager = await get_redis_manager()
        async with asyncio.timeout(60):
            while manager.get_metrics()["breaker"] != "closed":
                await cache.get("key")
                await asyncio.sleep(0.01)
        await cache.set("key", "in redis")
        assert await manager.scan_keys("*") == ["default:key"]
        await close_cache()
