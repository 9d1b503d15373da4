"""Context stores against what they stand on: ``python -m benchmarks.context``.

Each figure is a ratio or a difference of medians of alternating rounds in one run, with its limit: a cached read
against a raw Redis GET and JSON, bulk writes against single ones, the synchronous face, routing among shards.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from redis.asyncio import Redis

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.keys import encode_key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.context.sync_store import SyncContextStore
from agent_service.infrastructure.database.engine import DatabaseManager
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import running_postgres
from tests.servers.redis import RedisServer

CONTEXT = {"user_name": "alice", "repo_name": "my-repo"}
MANY = 1_000


async def compare_hit(url: str) -> None:
    """A hit of a cache-backed store over Redis, and the same document by GET and JSON."""
    peer = Redis.from_url(url)
    await peer.set("raw", json.dumps(CONTEXT))
    async with CacheBackedContextStore(
        db=InMemoryContextStore(), cache=RedisContextStore(url=url, timeout=10)
    ) as store:
        await store.set("session-123", CONTEXT)

        async def raw() -> object:
            return json.loads(await peer.get("raw") or b"null")

        async def ours() -> object:
            return await store.get("session-123")

        seconds = await seconds_per_call({"redis-py GET + json": raw, "CacheBackedContextStore.get": ours}, calls=500)
        assert store.counters["misses"] == 0
    await peer.aclose()
    print_ratios("A hit over Redis (limit 1.3 x)", seconds)


async def compare_bulk(name: str, store: ContextStore) -> None:
    """``set_many`` of a thousand keys, and a thousand ``set``."""
    values = {f"session-{n}": CONTEXT for n in range(MANY)}
    singly, at_once = [], []
    for _ in range(5):
        singly.append(await _timed(_set_singly, store, values))
        at_once += [await _timed(store.set_many, values) for _ in range(5)]
    ratio = statistics.median(singly) / statistics.median(at_once)
    print(
        f"\nset_many of {MANY} on {name}: {statistics.median(at_once) * 1e3:.1f} ms, {ratio:.0f} x faster (limit 20 x)"
    )


async def _set_singly(store: ContextStore, values: dict[str, dict[str, Any]]) -> None:
    for key, value in values.items():
        await store.set(key, value)


async def _timed(work: Callable[..., Awaitable[None]], *arguments: Any) -> float:
    started = time.perf_counter()
    await work(*arguments)
    return time.perf_counter() - started


class _OnTheLoop(InMemoryContextStore):
    """The store in memory, called through the bridge like one that waits."""

    never_waits = False


def compare_sync() -> None:
    """What the synchronous face adds to a call that itself costs next to nothing."""
    awaited, bridged = InMemoryContextStore(), SyncContextStore(_OnTheLoop())
    bridged.set("a", CONTEXT)
    asyncio.run(awaited.set("a", CONTEXT))
    direct = asyncio.run(seconds_per_call({"awaited": lambda: awaited.get("a")}, calls=2_000))["awaited"]
    rounds = [_seconds(lambda: bridged.get("a"), 1_000) for _ in range(7)]
    added = statistics.median(rounds) - direct
    print(f"\nThe synchronous face adds {added * 1e6:.1f} us to a call (limit 60 us)")


def compare_routing() -> None:
    """What finding the shard of a key adds, key included."""
    shards = ShardManager({f"shard{n}": InMemoryContextStore() for n in range(4)})
    routed = statistics.median([_seconds(lambda: shards.shard_of("session-123"), 20_000) for _ in range(7)])
    encoded = statistics.median([_seconds(lambda: encode_key("session-123"), 20_000) for _ in range(7)])
    print(f"\nRouting among 4 shards adds {(routed - encoded) * 1e6:.2f} us (limit 3 us)")


def _seconds(work: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


@contextmanager
def _migrated_postgres() -> Any:
    with running_postgres(durable=True) as server:
        url = server.create_database("bench")

        async def migrate() -> None:
            database = DatabaseManager(url)
            await database.upgrade()
            await database.close()

        asyncio.run(migrate())
        yield url


async def compare_stores(redis_url: str, postgres_url: str, folder: Path) -> None:
    """Everything that needs a server."""
    await compare_hit(redis_url)
    stores: dict[str, ContextStore] = {
        "Redis": RedisContextStore(url=redis_url, timeout=10),
        "PostgreSQL": DatabaseContextStore(url=postgres_url),
        "SQLite": DatabaseContextStore(db_path=folder / "context.db"),
    }
    for name, store in stores.items():
        async with store:
            await compare_bulk(name, store)


def run() -> None:
    """Measure, and print."""
    with RedisServer() as redis, _migrated_postgres() as postgres_url, TemporaryDirectory() as folder:
        asyncio.run(compare_stores(redis.url, postgres_url, Path(folder)))
    compare_sync()
    compare_routing()


if __name__ == "__main__":
    run()
