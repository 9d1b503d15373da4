"""What Redis missed in an outage is replayed in a bounded time, however many patterns there are."""

import asyncio

import pytest

from agent_service.core.globs import MOST_TESTS
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache, get_cache, open_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import get_redis_manager
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.caches import Pair, cut, make_fallback, recover


def scans(server: RedisServer) -> int:
    """Return how many pages of keys a server was asked for."""
    for line in server.cli("INFO", "commandstats").splitlines():
        if line.startswith(b"cmdstat_scan:"):
            return int(line.partition(b"calls=")[2].split(b",")[0])
    return 0


async def test_all_patterns_of_a_namespace_are_replayed_in_one_pass(
    behind_proxy: Pair, redis_proxy: TcpProxy, redis_server: RedisServer
):
    cache, outage = behind_proxy
    await cache.set_many({f"user:{n}:name": n for n in range(300)})
    await cut(cache, outage, redis_proxy)
    for n in range(0, 300, 2):
        await cache.delete_pattern(f"user:{n}:*")
    before = scans(redis_server)
    redis_proxy.resume()
    await recover(cache, outage)

    assert scans(redis_server) - before == 2  # one over the leases, one over the entries
    assert sorted(await cache.get_many([f"user:{n}:name" for n in range(300)])) == sorted(
        f"user:{n}:name" for n in range(1, 300, 2)
    )
    assert cache.counters.pattern_clears == 0


async def test_patterns_that_are_too_many_for_one_pass_clear_the_namespace(
    behind_proxy: Pair, redis_proxy: TcpProxy, redis_server: RedisServer
):
    cache, outage = behind_proxy
    await cache.set_many({"user:1": 1, "other": 2})
    await cut(cache, outage, redis_proxy)
    for n in range(MOST_TESTS + 1):
        await cache.delete_pattern(f"*{n}*")
    before = scans(redis_server)
    redis_proxy.resume()
    await recover(cache, outage)

    assert await cache.get_many(["user:1", "other"]) == {}
    assert scans(redis_server) == before
    assert cache.counters.pattern_clears == 1


async def test_patterns_written_all_the_time_do_not_keep_a_recovery_from_ending(
    behind_proxy: Pair, redis_proxy: TcpProxy
):
    cache, outage = behind_proxy
    await cache.set_many({f"k{n}": n for n in range(10_000)})
    await cut(cache, outage, redis_proxy)
    await cache.delete_pattern("first:*")
    redis_proxy.resume()
    redis_proxy.delay(0.05)  # so that a pass over the keys takes longer than a write waits
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            written += 1
            await cache.delete_pattern(f"p{written}:*")
            await asyncio.sleep(0.001)

    writing = [asyncio.create_task(write()) for _ in range(8)]
    try:
        async with asyncio.timeout(60):
            while not outage.breaker.closed:
                await cache.exists("probe")
                await asyncio.sleep(0.01)
    finally:
        redis_proxy.delay(0)
        for each in writing:
            each.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    assert written > 8


async def test_a_load_that_runs_while_many_patterns_are_removed_does_not_store(redis_url: str):
    client = RedisClient(redis_url, timeout=5)
    cache, outage = make_fallback(client)
    others, other_outage = make_fallback(client)
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        began.set()
        await goes_on.wait()
        return "old"

    loading = asyncio.create_task(others.get_or_load("user:7:name", load))
    await began.wait()
    await cache.delete_patterns([f"user:{n}:*" for n in range(50)])
    goes_on.set()

    assert await loading == "old"
    assert await cache.lookup("user:7:name") is MISS
    for each, its in ((cache, outage), (others, other_outage)):
        await each.aclose()
        await its.aclose()
    await client.aclose()


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.parametrize("with_redis", [False, True])
async def test_many_patterns_at_once_remove_just_what_each_would(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, with_redis: bool, l1: bool
):
    if with_redis:
        monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    cache = await open_cache("", l1=l1)
    keys = ["user:1:a", "user:1:b", "user:2:a", "café", "caf", "x*y", "xzy", "plain"]
    await cache.set_many(dict.fromkeys(keys, 1))
    await cache.get_many(keys)
    metrics = (await get_redis_manager()).metrics

    def clears() -> int:
        return int(metrics.snapshot()["metrics"]["default:pattern_clears"])

    before = clears()

    assert await cache.delete_patterns(["user:1:*", "caf?", "x\\*y", "*:a", "plain", "none"]) == 5
    assert sorted(await cache.get_many(keys)) == ["caf", "café", "xzy"]
    assert await cache.delete_patterns([f"*{n}*" for n in range(MOST_TESTS)] + ["caf??"]) == 0
    assert await cache.get_many(keys) == {}
    assert clears() == before + 1
    await close_cache()


async def test_the_room_that_the_journal_takes_is_among_the_metrics(redis_proxy: TcpProxy, monkeypatch):
    monkeypatch.setenv("REDIS_URL", redis_proxy.url)
    monkeypatch.setenv("REDIS_TIMEOUT", "0.2")
    monkeypatch.setenv("CACHE_JOURNAL_MAX", "10")
    reset_settings()
    cache = await get_cache()
    redis_proxy.stall()
    await cache.delete("x" * 1000)
    metrics = (await get_redis_manager()).get_metrics()
    assert (metrics["journal_length"], metrics["journal_collapsed"]) == (1, 0)
    assert metrics["journal_bytes"] > 1000
    for n in range(20):
        await cache.delete(f"{n}" + "x" * 4000)
    metrics = (await get_redis_manager()).get_metrics()
    redis_proxy.resume()
    await close_cache()

    assert metrics["journal_collapsed"] > 0
    assert metrics["journal_bytes"] <= 10 * 1024


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["user:{}:*", "*:{}", "user:*:{}:*", "user:{}:[a-z]*:?"])
async def test_a_recovery_with_ten_thousand_patterns_on_a_large_cache_takes_seconds(
    redis_proxy: TcpProxy, redis_url: str, form: str
):
    """300,000 keys, and others who read and write meanwhile. Prints how long it took, and what one pattern takes."""
    client, other_client = RedisClient(redis_proxy.url, timeout=2), RedisClient(redis_url, timeout=10)
    cache, outage = make_fallback(client, limit=20_000)
    others: RedisCache[int] = RedisCache(other_client)
    size, count = 300_000, 10_000
    for start in range(0, size, 5000):
        numbers = range(start, start + 5000)
        await others.set_many({f"user:{n}:{n % 7}:{n % 50_000}": n for n in numbers}, ttl=3600)
    await cut(cache, outage, redis_proxy)
    for n in range(count):
        await cache.delete_pattern(form.format(n))
    working = True
    served = 0

    async def work(first: int) -> None:
        nonlocal served
        while working:
            await others.get_many([f"user:{n}:{n % 7}:{n % 50_000}" for n in range(first, first + 20)])
            await others.set(f"busy:{first}", served)
            served += 1
            await asyncio.sleep(0.005)

    traffic = [asyncio.create_task(work(n * 30_000)) for n in range(8)]
    loop = asyncio.get_running_loop()
    redis_proxy.resume()
    started = loop.time()
    longest = 0.0
    async with asyncio.timeout(600):
        while not outage.breaker.closed:
            before = loop.time()
            await cache.exists("probe")
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - before)
    took = loop.time() - started
    started = loop.time()
    await others.delete_pattern("nothing:*")
    one = loop.time() - started
    working = False
    await asyncio.gather(*traffic)
    clears = cache.counters.pattern_clears
    await other_client.execute("FLUSHDB")  # what looks for keys that were left behind looks at each
    await cache.aclose()
    await outage.aclose()
    await client.aclose()
    await other_client.aclose()

    print(  # noqa: T201
        f"{count} patterns {form} on {size} keys: {took:.1f} s beside {served} rounds of others, the loop held up for "
        f"{longest:.2f} s at most; one pattern alone {one:.2f} s, so one by one {one * count / 60:.0f} minutes"
    )
    assert clears == 0
