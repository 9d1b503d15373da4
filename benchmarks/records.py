"""
Tenants' records against raw commands, and deletions among few and many other keys: ``python -m benchmarks.records``.

A record of 8 fields, one call at a time. The raw commands run on redis-py as its documentation shows them, and on our
own client, which costs less and leaves only the record to be measured. None of the raw ones decodes a value.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.infrastructure.redis.records.record import HashRecord
from agent_service.tenants import RedisSharedState, RedisTable, RedisUser
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.redis import RedisServer

DATA = {"name": "Ann", "score": 100, "ratio": 0.5, "active": True, "none": None, "tags": ["a", "b"]}
DATA |= {"profile": {"city": "Bern", "zip": "3000"}, "note": "x" * 100}
RAW: dict[Any, Any] = {name: repr(value) for name, value in DATA.items()}
CALLS = 500
FEW, MANY = 1_000, 1_000_000
DELETED = 200
ROUNDS = 15

FILL = "for n = ARGV[1], ARGV[2] do redis.call('SET', 'other:' .. n, 'x', 'EX', 9999) end"


async def compare_calls(url: str) -> None:
    """Print what a get and an upsert cost."""
    client, peer = RedisClient(url, timeout=10), Redis.from_url(url)
    user, record = RedisUser("acme", "ann"), HashRecord(client, b"record", ttl=3600)
    await user.upsert(DATA)
    await record.set(DATA)
    await client.execute("HSET", b"raw", *(each for pair in RAW.items() for each in pair))
    write = (b"HSET", b"raw", *(each for pair in RAW.items() for each in pair))

    async def raw_upsert() -> object:
        async with peer.pipeline(transaction=False) as pipeline:
            pipeline.hset("raw", mapping=RAW)
            pipeline.pexpire("raw", 3_600_000)
            return await pipeline.execute()

    await measure(
        "get of 8 fields",
        {
            "redis-py: hgetall": lambda: peer.hgetall("raw"),
            "our client: HGETALL": lambda: client.execute(b"HGETALL", b"raw"),
            "HashRecord.get": record.get,
            "RedisUser.get": user.get,
        },
    )
    await measure(
        "upsert of 8 fields",
        {
            "redis-py: pipeline of hset and pexpire": raw_upsert,
            "our client: pipeline of HSET and PEXPIRE": lambda: client.pipeline(
                [write, (b"PEXPIRE", b"raw", 3_600_000)]
            ),
            "HashRecord.upsert": lambda: record.upsert(DATA),
            "RedisUser.upsert": lambda: user.upsert(DATA),
        },
    )
    await client.aclose()
    await peer.aclose()


async def measure(title: str, candidates: dict[str, Callable[[], Awaitable[object]]]) -> None:
    """Print a table, after a round that warms everything up."""
    await seconds_per_call(candidates, calls=CALLS, rounds=1)
    print_ratios(title, await seconds_per_call(candidates, calls=CALLS))


async def compare_deletions(servers: dict[str, RedisServer]) -> None:
    """Print what deleting 200 records costs, in turns on a server with few and on one with many other keys."""
    taken: dict[str, dict[str, list[float]]] = {}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            os.environ["REDIS_URL"] = server.url
            reset_settings()
            for title, seconds in (await delete_records()).items():
                taken.setdefault(title, {}).setdefault(name, []).append(seconds)
            await close_redis()
    for title, by_server in taken.items():
        print_ratios(title, {name: sorted(each)[len(each) // 2] for name, each in by_server.items()})


async def delete_records() -> dict[str, float]:
    """Store 200 states and 200 rows, delete them, and give the seconds that each deletion took."""
    states, tables = RedisSharedState("acme", "ann"), RedisTable("acme")
    for number in range(DELETED):
        await states.set(str(number), DATA)
        await tables.set(str(number), "pk", DATA)
    started = time.perf_counter()
    cleared = await states.clear_all_states()
    between = time.perf_counter()
    deleted = await tables.delete_all_by_pkid("pk")
    ended = time.perf_counter()
    assert cleared == deleted == DELETED
    return {"clear_all_states of 200": between - started, "delete_all_by_pkid of 200": ended - between}


def fill(server: RedisServer, number: int) -> RedisServer:
    """Store so many other keys."""
    for start in range(0, number, 50_000):
        server.cli("EVAL", FILL, 0, start + 1, min(start + 50_000, number))
    return server


def run() -> None:
    """Print the tables."""
    with RedisServer() as few, RedisServer() as many:
        os.environ["REDIS_URL"] = few.url
        reset_settings()
        filled = {f"{number:,} other keys": fill(server, number) for server, number in ((few, FEW), (many, MANY))}
        asyncio.run(_run(filled))


async def _run(servers: dict[str, RedisServer]) -> None:
    await compare_calls(next(iter(servers.values())).url)
    await close_redis()
    await compare_deletions(servers)


if __name__ == "__main__":
    run()
