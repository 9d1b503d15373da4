"""``lock="distributed"``: one load for all processes."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent_service.core.errors import CacheValueError
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]


def calls_of_scripts_and_reads(server: RedisServer) -> Counter[str]:
    lines = server.cli("INFO", "commandstats").decode().splitlines()
    stats = {line.split(":")[0].removeprefix("cmdstat_"): line for line in lines if line.startswith("cmdstat_")}
    counted = ("mget", "evalsha", "eval", "unlink", "set")
    return Counter({name: int(stats[name].split("calls=")[1].split(",")[0]) for name in counted if name in stats})


async def test_a_cold_start_of_four_processes_with_a_hundred_callers_each_makes_one_load(own_redis: RedisServer):
    processes = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cache.cold_start", own_redis.url, "4", "100", cwd=ROOT
    )
    async with asyncio.timeout(60):
        while own_redis.cli("GET", "ready") != b"4":
            await asyncio.sleep(0.01)
        before = calls_of_scripts_and_reads(own_redis)
        own_redis.cli("SET", "go", "1")
        assert await processes.wait() == 0

    commands = calls_of_scripts_and_reads(own_redis) - before
    assert own_redis.cli("GET", "loads") == b"1"
    assert commands.total() <= 100, commands


@pytest.fixture
async def two(redis_url: str) -> Any:
    clients = [RedisClient(redis_url, timeout=5) for _ in range(2)]
    yield [RedisCache[Any](each, lease_seconds=0.3) for each in clients]
    for each in clients:
        await each.aclose()


async def test_who_waits_takes_over_when_the_load_elsewhere_fails(two: list[RedisCache[Any]]):
    started = asyncio.Event()

    async def fail() -> None:
        started.set()
        await asyncio.sleep(0.05)
        raise LookupError("nobody")

    async def load() -> str:
        return "value"

    failing = asyncio.create_task(two[0].get_or_load("k", fail, lock="distributed"))
    await started.wait()

    assert await asyncio.wait_for(two[1].get_or_load("k", load, lock="distributed"), 60) == "value"
    with pytest.raises(LookupError):
        await failing


async def test_who_waits_takes_over_when_the_process_that_loads_dies(two: list[RedisCache[Any]], redis_url: str):
    dead = RedisClient(redis_url, timeout=5)
    await dead.execute("SET", "agent_service%lease:{agent_service:default:k}", "of nobody", "PX", 300)

    async def load() -> str:
        return "value"

    assert await asyncio.wait_for(two[0].get_or_load("k", load, lock="distributed"), 60) == "value"
    assert await two[1].get("k") == "value"
    await dead.aclose()


async def test_who_gets_the_lease_looks_for_what_was_loaded_since_the_miss(
    two: list[RedisCache[Any]], redis_proxy: TcpProxy
):
    """The answer to the first look, a miss, is held back while another process loads."""
    client = RedisClient(redis_proxy.url, timeout=5)
    far: RedisCache[Any] = RedisCache(client)
    await far.get("k")
    redis_proxy.delay(0.2)

    async def load(name: str) -> str:
        return name

    missed = asyncio.create_task(far.get_or_load("k", lambda: load("again"), lock="distributed"))
    await asyncio.sleep(0.1)
    assert await two[0].get_or_load("k", lambda: load("once"), lock="distributed") == "once"

    assert await missed == "once"
    await client.aclose()


async def test_without_it_each_process_loads_for_itself(two: list[RedisCache[Any]]):
    calls = []

    async def load() -> int:
        calls.append(1)
        await asyncio.sleep(0.05)
        return 1

    await asyncio.gather(*(each.get_or_load("k", load) for each in two for _ in range(10)))

    assert len(calls) == 2


async def test_a_refresh_waits_for_nobody_and_its_value_stays(two: list[RedisCache[Any]]):
    started, finish = asyncio.Event(), asyncio.Event()
    answers = {0: "old", 1: "new"}

    def decorate(number: int) -> Any:
        @cached(cache=two[number], key="k", key_prefix=f"refresh{id(two)}", lock="distributed")
        async def get() -> str:
            if number == 0:
                started.set()
                await finish.wait()
            return answers[number]

        return get

    old, new = decorate(0), decorate(1)
    early = asyncio.create_task(old())
    await started.wait()

    assert await new.refresh() == "new"
    finish.set()
    assert await early == "old"
    assert await new() == "new"
    assert await old() == "new"


@pytest.mark.parametrize("lock", ["local", True, ["distributed"]])
async def test_an_unknown_lock_is_refused(lock: Any):
    cache: ICache[int] = InMemoryCache()

    async def load() -> int:
        return 1

    with pytest.raises(CacheValueError, match="lock"):
        await cache.get_or_load("k", load, lock=lock)
    with pytest.raises(CacheValueError, match="lock"):
        cached(lock=lock)
