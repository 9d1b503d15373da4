"""Random writes, reads and outages: when all is quiet, no cache tells anything older than the database."""

import asyncio
import random

import pytest
from sqlalchemy import update

from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.outbox import invalidate_in
from agent_service.infrastructure.redis.client import RedisClient
from tests.outbox.test_processes import worker
from tests.outbox.test_run import running
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.depth import examples
from tests.support.outbox import NAMESPACE, configure, until_drained
from tests.support.waiting import until

KEYS = [f"row:{n}" for n in range(6)]


async def make_rows() -> None:
    async with get_session() as db:
        db.add_all([ContextEntry(key=key, value="0") for key in KEYS])


async def stored(key: str) -> int:
    async with get_session() as db:
        entry = await db.get(ContextEntry, key)
        assert entry is not None
        return int(entry.value)


async def read(cache: ICache[int], key: str) -> int:
    return await cache.get_or_load(key, lambda: stored(key))


async def write(key: str, value: int, *, by_pattern: bool = False, undo: bool = False) -> None:
    """Change a row and have it invalidated, in one transaction."""
    async with get_session() as db:
        await db.execute(update(ContextEntry).where(ContextEntry.key == key).values(value=str(value)))
        if by_pattern:
            invalidate_in(db, patterns=[f"{key[:-1]}[{key[-1]}]"], namespace=NAMESPACE)
        else:
            invalidate_in(db, keys=[key], namespace=NAMESPACE)
        await db.flush()
        if undo:
            await db.rollback()


@pytest.mark.parametrize("seed", [1, 2])
async def test_when_all_is_quiet_no_cache_tells_anything_older_than_the_database(
    house: TcpProxy, others: RedisCache[int], seed: int
):
    rng = random.Random(seed)
    committed = dict.fromkeys(KEYS, 0)
    await make_rows()
    cache = await open_cache(NAMESPACE)
    working, reads = True, 0

    async def writer(key: str) -> None:
        for value in range(1, 1 + examples(12, 30)):
            undo = rng.random() < 0.25
            await write(key, value, by_pattern=rng.random() < 0.5, undo=undo)
            if not undo:
                committed[key] = value
            await asyncio.sleep(rng.random() * 0.06)

    async def reader(source: ICache[int]) -> None:
        nonlocal reads
        while working:
            await read(source, rng.choice(KEYS))
            reads += 1
            await asyncio.sleep(rng.random() * 0.016)

    async def disturb() -> None:
        while working:
            await asyncio.sleep(rng.random() * 0.1)
            house.stall()
            await asyncio.sleep(rng.random() * 0.6)
            house.resume()

    async with worker("run") as process, running(interval=0.05):
        assert await process.line() == "ready"
        background = [asyncio.create_task(reader(source)) for source in (cache, others, cache, others)]
        disturbing = asyncio.create_task(disturb())
        await asyncio.gather(*map(writer, KEYS))
        await until(lambda: reads > 50)
        working = False
        await asyncio.gather(*background)
        await disturbing
        await until_drained()

        async def recovered() -> bool:
            await cache.exists("probe")
            return cache.caught_up

        await until(recovered)
        here = {key: await read(cache, key) for key in KEYS}
        elsewhere = {key: await read(others, key) for key in KEYS}

    assert here == elsewhere == committed == {key: await stored(key) for key in KEYS}


async def test_redis_killed_while_it_is_needed_serves_nothing_stale_when_it_is_back(
    house: TcpProxy, monkeypatch: pytest.MonkeyPatch
):
    """It keeps its data over the restart, so the old value is there again when it answers."""
    with RedisServer(("appendonly", "yes"), ("appendfsync", "always")) as server:
        configure(monkeypatch, redis_url=server.url)
        await make_rows()
        cache = await open_cache(NAMESPACE)
        key = KEYS[0]
        assert await read(cache, key) == 0
        async with running(interval=0.05):
            server.kill()
            await write(key, 7)

            async def tried() -> bool:
                return not cache.caught_up

            await until(tried)
            during = await read(cache, key)
            server.restart()
            client = RedisClient(server.url, timeout=10)
            others: RedisCache[int] = RedisCache(client, namespace=NAMESPACE)
            was_there = await others.get(key)
            seen = set()
            while not cache.caught_up:
                seen.add(await read(cache, key))
                await asyncio.sleep(0.005)
            seen.add(await read(cache, key))
            await until_drained()
            elsewhere = await read(others, key)
            await client.aclose()

        assert (was_there, during, seen, elsewhere) == (0, 7, {7}, 7)
