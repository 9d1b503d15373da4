"""
What measuring costs: a decorated hit, a GET by 64 tasks and an append by 64 tasks, measured and not.

``python -m benchmarks.instrumented``. Measured means as in a service: everything is counted, a snapshot is published
every second, and ``/metrics`` is read every second. Not measured means that nothing of that happens: what counts
durations and outcomes is replaced by functions that do nothing. Seconds are those of this process's processor, in
rounds that alternate.
"""

import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.pool import AsyncAdaptedQueuePool

from agent_service.core.histogram import Histogram
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import InMemoryCache, cached
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.database.append import measured as append_measured
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine.measured import MeasuredPool
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.integrations.fleet import publish_fleet
from agent_service.integrations.prometheus import AgentServiceCollector
from tests.servers.redis import RedisServer

ROUNDS = 15
TASKS = 64
EVERY = 1.0
"""Seconds between two snapshots, and between two scrapes."""

Work = Callable[[], Awaitable[object]]


@contextmanager
def nothing_is_counted() -> Iterator[None]:
    """Replace what counts by what does nothing, as cheaply as it can be replaced."""
    pool = mock.patch.object(MeasuredPool, "connect", AsyncAdaptedQueuePool.connect)
    observing = mock.patch.object(Histogram, "observe", _do_nothing)
    appending = mock.patch.object(append_measured.counted, "__exit__", _do_nothing)
    committing = mock.patch.object(append_measured.commit, "__exit__", _do_nothing)
    with pool, observing, appending, committing:
        yield


def _do_nothing(*_: object) -> None:
    pass


async def scrape() -> None:
    """Read all metrics again and again."""
    registry = CollectorRegistry()
    registry.register(AgentServiceCollector())
    while True:
        await asyncio.to_thread(generate_latest, registry)
        await asyncio.sleep(EVERY)


async def work_for(work: Work, calls: int) -> float:
    """Return the processor's seconds of so many calls."""
    started = time.process_time()
    await work_off(work, calls)
    return time.process_time() - started


async def work_off(work: Work, calls: int) -> None:
    async def some(number: int) -> None:
        for _ in range(number):
            await work()

    if calls < TASKS * 2000:
        await asyncio.gather(*(some(calls // TASKS) for _ in range(TASKS)))
    else:
        await some(calls)


async def compare(work: Work, calls: int) -> tuple[float, float]:
    """Return the processor's seconds of a call, not measured and measured: medians."""
    plain, measured = [], []
    await work_off(work, calls)
    for _ in range(ROUNDS):
        gc.collect()
        with nothing_is_counted():
            plain.append(await work_for(work, calls))
        gc.collect()
        background = [asyncio.create_task(publish_fleet(EVERY)), asyncio.create_task(scrape())]
        measured.append(await work_for(work, calls))
        for each in background:
            each.cancel()
        await asyncio.gather(*background, return_exceptions=True)
    return statistics.median(plain) / calls, statistics.median(measured) / calls


async def measure() -> dict[str, tuple[float, float]]:
    """Measure each kind of work."""

    @cached(ttl=300, cache=InMemoryCache())
    async def load(number: int) -> str:
        return "x" * number

    async def hit() -> None:
        await load(50)

    client = (await get_redis_manager()).client
    await client.set_many({b"bench": b"x" * 200})

    async def read() -> None:
        await client.get(b"bench")

    async with get_database().session() as db:
        session = (await SessionRepository(db).create(Session(user_id="bench"))).id
    async with SessionWriter() as writer:

        async def append() -> None:
            await writer.append(session, {"role": "user", "content": "Help me debug this code, please."})

        found = {
            "a decorated hit in memory": await compare(hit, 1_000_000),
            f"a GET by {TASKS} tasks": await compare(read, TASKS * 400),
            f"an append to SQLite by {TASKS} tasks": await compare(append, TASKS * 100),
        }
    await close_database()
    await close_cache()
    return found


def run() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, RedisServer() as server:
        file = Path(folder) / "bench.db"
        settings = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite+aiosqlite:///{file}"}
        with mock.patch.dict(os.environ, settings), suppress(KeyboardInterrupt):
            reset_settings()
            found = asyncio.run(measure())
    reset_settings()
    print("\nWhat measuring costs (seconds of the processor)")
    for name, (plain, measured) in found.items():
        print(f"  {name:<40}{plain * 1e9:>10,.0f} ns {measured * 1e9:>10,.0f} ns {measured / plain - 1:>+8.1%}")


if __name__ == "__main__":
    run()
