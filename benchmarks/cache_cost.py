"""What the promises of the cache cost, as ratios in one run: ``python -m benchmarks.cache_cost``.

Rounds of the candidates alternate; each ratio is the median over the rounds of a candidate against the first one of the
same round.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from benchmarks.conformance.adapter import Function, Store
from benchmarks.conformance.ours import Ours, OursMemory, OursRedis, OursTiered
from benchmarks.conformance.processes import start_cold
from benchmarks.monitor import Monitor
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.redis import RedisServer

__all__ = ["run"]

TASKS = (1, 64, 256)
KEYS = 1000
ROUNDS = 21
SECONDS = 0.1
TAGS = 3
"""Tags of a size: so many invalidations of a full one can be measured, because each of them empties one."""

Read = Callable[[int], Awaitable[object]]


def document(number: int) -> dict[str, Any]:
    """A value of about 200 bytes."""
    fields = {"id": f"user:{number:06}", "active": True, "score": number / 7, "tags": ["a", "b", "c"], "note": ""}
    return fields | {"note": "x" * (200 - len(json.dumps(fields)))}


async def hits_on_redis(url: str) -> dict[int, dict[str, float]]:
    """Ratios by number of tasks and candidate. The unfenced GETs use the cache's own client and codec.

    One of them makes its key of the arguments, as the decorator does, so that what the fence costs is seen apart from
    what the key costs.
    """

    async def load(n: int) -> dict[str, Any]:
        return document(n)

    async with OursRedis(url, Store.SERVER) as ours:
        client, codec = ours.client, ours.cache.codec
        plain: Any = ours.decorate(load, key_prefix="plain")
        data = {n: codec.encode(document(n)).data for n in range(KEYS)}
        await client.set_many({b"given:%d" % n: each for n, each in data.items()})
        await client.set_many({b"made:" + plain.cache_key(n).encode(): each for n, each in data.items()})
        await ours.cache.set_many({f"fenced:{n}": document(n) for n in range(KEYS)})

        async def unfenced(n: int) -> object:
            return codec.decode(await client.get(b"given:%d" % n))

        async def fenced(n: int) -> object:
            return await ours.cache.get(f"fenced:{n}")

        async def unfenced_by_arguments(n: int) -> object:
            return codec.decode(await client.get(b"made:" + plain.cache_key(n).encode()))

        candidates: dict[str, Read] = {
            "unfenced GET": unfenced,
            "cache.get": fenced,
            "GET, key made": unfenced_by_arguments,
            "@cached": plain,
            "@cached, two tags": ours.decorate(load, key_prefix="tagged", tags=["user:{n}", "users"]),
        }
        for read in candidates.values():
            for n in range(KEYS):
                await read(n)
        return {tasks: await _ratios(candidates, tasks) for tasks in TASKS}


async def _ratios(candidates: Mapping[str, Read], tasks: int) -> dict[str, float]:
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        seconds = [await _seconds_per_read(read, tasks) for read in candidates.values()]
        rounds.append([each / seconds[0] for each in seconds])
    medians = [statistics.median(each) for each in zip(*rounds, strict=True)]
    return dict(zip(candidates, medians, strict=True))


async def _seconds_per_read(read: Read, tasks: int) -> float:
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS

    async def work(start: int) -> int:
        done = 0
        while loop.time() < end:
            await read((start + done) % KEYS)
            done += 1
        return done

    started = time.perf_counter()
    done = await asyncio.gather(*(work(number * 7) for number in range(tasks)))
    return (time.perf_counter() - started) / sum(done)


async def hits_in_memory(url: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a hit in memory alone and of one in memory in front of Redis: ``cache.get``, then ``@cached``."""

    async def load(n: int) -> dict[str, Any]:
        return document(n)

    async with OursMemory(url, Store.OWN) as memory, OursTiered(url, Store.NEAR) as tiered:
        caches = {"memory": memory, "L1 in front of Redis": tiered}
        functions: dict[str, Function] = {name: each.decorate(load) for name, each in caches.items()}
        for name, each in caches.items():
            await each.cache.set("k", document(7))
            for _ in range(3):
                await each.cache.get("k")
                await functions[name](7)
        gets = {name: each.cache.get for name, each in caches.items()}
        return (
            await seconds_per_call(gets, "k", calls=10_000),
            await seconds_per_call(functions, 7, calls=20_000),
        )


async def cold_start(server: RedisServer) -> tuple[int, int]:
    """Loads, and commands sent to Redis, of 4 processes with 100 callers each."""
    with Monitor(server.url) as monitor:
        loads = await start_cold("OursRedis", server.url, processes=4, callers=100)
    return loads, monitor.sent


async def invalidations(kind: type[Ours], url: str, few: int, many: int) -> dict[str, float]:
    """Seconds to invalidate a tag by how many entries carry it."""
    async with kind(url, Store.SERVER) as ours:
        for size in (few, many):
            await _fill(ours.cache, size)
        taken: dict[str, list[float]] = {}
        for number in range(TAGS):
            for size in (few, many):
                started = time.perf_counter()
                await ours.cache.invalidate_tags([_tag(size, number)])
                taken.setdefault(f"a tag with {size:,} entries", []).append(time.perf_counter() - started)
        return {name: statistics.median(each) for name, each in taken.items()}


def _tag(size: int, number: int) -> str:
    return f"of {size}, number {number}"


async def _fill(cache: Any, entries: int, at_once: int = 200) -> None:
    """Store so many entries, each with all the tags of this size."""

    async def load(keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, "x" * 50)

    tags = [_tag(entries, number) for number in range(TAGS)]
    for start in range(0, entries, at_once):
        keys = [f"{entries}:{n}" for n in range(start, min(start + at_once, entries))]
        await cache.get_or_load_many(keys, load, tags=tags)


def run() -> None:
    """Measure and print."""
    with RedisServer() as server:
        ratios = asyncio.run(hits_on_redis(server.url))
    print("\nA hit on Redis against an unfenced GET of the same 200 B by the same client and codec")
    print("  (a fenced hit at most 1.15 x the GET of its key, one with two tags at most 1.3 x)")
    print(f"{'tasks':>8}" + "".join(f"{name:>20}" for name in ratios[1]))
    for tasks, each in ratios.items():
        print(f"{tasks:>8}" + "".join(f"{ratio:>20.2f}" for ratio in each.values()))

    with RedisServer() as server:
        loads, commands = asyncio.run(cold_start(server))
    print("\nCold start of 4 processes with 100 callers each, lock='distributed' (1 load, at most 100 commands)")
    print(f"  {loads} load{'s' * (loads != 1)}, {commands} commands")

    kinds: tuple[type[Ours], ...] = (OursMemory, OursRedis)
    for kind in kinds:
        with RedisServer() as server:
            seconds = asyncio.run(invalidations(kind, server.url, 10, 100_000))
        print_ratios(f"invalidate_tags, {kind.name} (the same)", seconds)

    with RedisServer() as server:
        gets, calls = asyncio.run(hits_in_memory(server.url))
    print_ratios("cache.get, a hit (L1 at most 3 x)", gets)
    print_ratios("@cached, a hit (L1 at most 3 x)", calls)


if __name__ == "__main__":
    run()
