"""
GET of a 200-byte JSON document by 1, 64, 256 and 1,000 tasks: RedisClient + orjson against redis-py + json.

``python -m benchmarks.redis_get``. redis-py runs on ``BlockingConnectionPool(50)``, its pool that does not raise under
load. Rounds of the two alternate and the median counts, so that what else the machine does meets both.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable

import orjson
from redis.asyncio import BlockingConnectionPool, Redis

from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.redis import RedisServer

TASKS = (1, 64, 256, 1000)
KEYS = 1000
ROUNDS = 5
SECONDS = 0.5

Read = Callable[[bytes], Awaitable[object]]


def document(number: int) -> bytes:
    """A JSON object of 200 bytes."""
    fields = {"id": f"user:{number:06}", "active": True, "score": number / 7, "tags": ["a", "b", "c"], "note": ""}
    fields["note"] = "x" * (200 - len(json.dumps(fields)))
    return json.dumps(fields).encode()


async def reads_per_second(read: Read, tasks: int) -> float:
    """How many reads per second so many tasks do, each waiting for its own."""
    loop = asyncio.get_running_loop()
    keys = [b"bench:%d" % number for number in range(KEYS)]
    end = loop.time() + SECONDS

    async def work(start: int) -> int:
        done = 0
        while loop.time() < end:
            await read(keys[(start + done) % KEYS])
            done += 1
        return done

    started = time.perf_counter()
    done = await asyncio.gather(*(work(number * 7) for number in range(tasks)))
    return sum(done) / (time.perf_counter() - started)


async def compare(url: str) -> list[tuple[int, float, float]]:
    """Reads per second by number of tasks: ours and redis-py's, medians."""
    client = RedisClient(url, timeout=10)
    peer = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=50, timeout=20))
    await client.set_many({b"bench:%d" % number: document(number) for number in range(KEYS)})

    async def ours(key: bytes) -> object:
        return orjson.loads(await client.get(key) or b"null")

    async def theirs(key: bytes) -> object:
        return json.loads(await peer.get(key) or b"null")

    results = []
    for tasks in TASKS:
        rounds = [[await reads_per_second(read, tasks) for read in (ours, theirs)] for _ in range(ROUNDS)]
        results.append((tasks, *(statistics.median(each) for each in zip(*rounds, strict=True))))
    await client.aclose()
    await peer.connection_pool.aclose()
    return results


def run() -> None:
    """Measure, and print a table."""
    with RedisServer() as server:
        results = asyncio.run(compare(server.url))
    print("GET of 200 B JSON, thousand per second (medians; ratio above 1: ours is faster)")
    print(f"{'tasks':>8}{'ours':>10}{'redis-py':>10}{'ratio':>8}")
    for tasks, ours, theirs in results:
        print(f"{tasks:>8}{ours / 1e3:>10.1f}{theirs / 1e3:>10.1f}{ours / theirs:>8.2f}")


if __name__ == "__main__":
    run()
