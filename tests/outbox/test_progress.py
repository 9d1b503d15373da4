"""However long a batch takes, and whatever keeps failing, everything else is delivered."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

import agent_service.infrastructure.database.outbox as outbox_table
from agent_service.core.errors import CacheError
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import close_database, get_database, get_session
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from agent_service.infrastructure.outbox.drain import BATCH
from agent_service.infrastructure.redis.client import RedisClient
from tests.outbox.test_drain import ask
from tests.outbox.test_run import running
from tests.servers.proxy import TcpProxy
from tests.support.outbox import NAMESPACE, configure, rows, until_drained
from tests.support.waiting import until

on_postgres = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


async def ask_for_patterns(*patterns: str, namespace: str = NAMESPACE) -> None:
    """Commit one row for each pattern."""
    async with get_session() as db:
        for pattern in patterns:
            invalidate_in(db, patterns=[pattern], namespace=namespace)


async def holders() -> list[int]:
    """Return the server processes whose transactions hold rows of the outbox."""
    async with get_session() as db:
        found = await db.execute(
            text(
                "SELECT pid FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        return [pid for (pid,) in found]


@on_postgres
async def test_a_batch_that_takes_longer_than_a_transaction_may_idle_is_done_at_the_first_attempt(
    house: TcpProxy, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox_table, "PATIENCE", timedelta(seconds=0.5))
    configure(monkeypatch, redis_timeout="30")
    await others.set_many({f"user:{n}": n for n in range(10_000)})
    await ask_for_patterns("user:1*", "user:2*", "user:3*")
    await ask("user:4")
    house.delay(0.1)  # some thirty replies, so some seconds

    assert await drain_outbox() == 4
    assert await rows() == 0
    house.delay(0)
    assert await others.get_many(["user:1", "user:22", "user:333", "user:4", "user:5"]) == {"user:5": 5}


@on_postgres
async def test_what_was_applied_is_removed_though_its_transaction_was_ended_meanwhile(
    house: TcpProxy, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch
):
    configure(monkeypatch, redis_timeout="30")
    await others.set_many({"ada": 1, "grace": 2})
    await ask("ada")
    await ask_for_patterns("gr*")
    house.stall()
    draining = asyncio.create_task(drain_outbox())

    async def holds() -> bool:
        return bool(await holders())

    await until(holds)
    async with get_session() as db:
        for pid in await holders():
            await db.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    house.resume()

    assert await draining == 2
    assert await rows() == 0
    assert await others.get_many(["ada", "grace"]) == {}


async def test_while_a_batch_is_applied_the_database_of_one_connection_serves_others(
    house: TcpProxy, monkeypatch: pytest.MonkeyPatch
):
    await close_database()
    configure(monkeypatch, database_url="sqlite+aiosqlite:///:memory:", redis_timeout="30", db_pool_timeout="5")
    await ask("ada")
    accepted = house.accepted
    house.stall()
    draining = asyncio.create_task(drain_outbox())

    async def asked() -> bool:
        return house.accepted > accepted

    await until(asked)
    waiting = await rows()
    house.resume()

    assert waiting == 1
    assert await draining == 1


async def test_keys_do_not_wait_for_the_patterns_of_their_batch(
    house: TcpProxy, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch
):
    configure(monkeypatch, redis_timeout="30")
    await others.set_many({f"user:{n}": n for n in range(10_000)})
    await ask_for_patterns("user:1*", "user:2*")
    await ask("user:4")
    house.delay(0.1)
    draining = asyncio.create_task(drain_outbox())

    async def is_gone() -> bool:
        return await others.lookup("user:4") is MISS

    await until(is_gone)
    waiting = await rows()

    assert waiting == 3
    house.delay(0)
    assert await draining == 3


@pytest.mark.parametrize("raises", [ValueError, CacheError])
@pytest.mark.parametrize("by_pattern", [False, True])
async def test_a_row_that_can_never_be_applied_keeps_no_other_waiting(
    house: TcpProxy,
    others: RedisCache[object],
    monkeypatch: pytest.MonkeyPatch,
    by_pattern: bool,
    raises: type[Exception],
):
    name = "delete_patterns" if by_pattern else "delete_many"
    working: Callable[..., Awaitable[int]] = getattr(BaseCache, name)

    async def failing(cache: BaseCache[Any], names: Any) -> int:
        if cache.namespace == "poison":
            raise raises("this row fails whenever it is tried")
        return await working(cache, names)

    monkeypatch.setattr(BaseCache, name, failing)
    keys = [f"k{n}" for n in range(BATCH + 20)]
    await others.set_many(dict.fromkeys(keys, 1))
    await ask(*keys[:10])
    if by_pattern:
        await ask_for_patterns("p*", namespace="poison")
    else:
        async with get_session() as db:
            invalidate_in(db, keys=["p"], namespace="poison")
    await ask(*keys[10:])
    async with running(interval=0.05):
        await until(partial(left, 1))
        assert await others.get_many(keys) == {}

        monkeypatch.undo()
        await until_drained()


async def left(count: int) -> bool:
    return await rows() == count


async def test_rows_that_met_an_outage_are_delivered_soon_after_it(house: TcpProxy, others: RedisCache[object]):
    keys = [f"k{n}" for n in range(BATCH + 100)]
    await others.set_many(dict.fromkeys(keys, 1))
    await ask(*keys)
    async with running(interval=0.05):
        house.stall()
        await asyncio.sleep(0.5)
        house.resume()
        await until_drained()

    assert await others.get_many(keys) == {}


@on_postgres
@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_patterns_over_a_large_cache_are_delivered_under_load_and_impatience(
    house: TcpProxy, redis_url: str, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch
):
    """300,000 keys, 1,000 rows with a pattern each; transactions that idle for a second are ended."""
    monkeypatch.setattr(outbox_table, "PATIENCE", timedelta(seconds=1))
    await close_database()
    configure(monkeypatch, redis_timeout="5")
    await get_database().prepare()
    size, count = 300_000, 1000
    for start in range(0, size, 5000):
        await others.set_many({f"user:{n}:name": n for n in range(start, start + 5000)}, ttl=3600)
    await ask_for_patterns(*(f"user:{n}:*" for n in range(count)))
    await ask("user:200000:name")
    reading = True
    reads = 0

    async def read() -> None:
        nonlocal reads
        client = RedisClient(redis_url, timeout=10)
        cache: RedisCache[object] = RedisCache(client, namespace=NAMESPACE)
        while reading:
            await cache.get_many([f"user:{n}:name" for n in range(reads % size, reads % size + 20)])
            reads += 1
        await client.aclose()

    traffic = [asyncio.create_task(read()) for _ in range(8)]
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(600):
        applied = await drain_outbox()
    took = asyncio.get_running_loop().time() - started
    reading = False
    await asyncio.gather(*traffic)

    print(f"{count} rows with patterns over {size} keys: {took:.1f} s beside {reads} reads of 20 keys")  # noqa: T201
    assert (applied, await rows()) == (count + 1, 0)
    assert await others.get_many([f"user:{n}:name" for n in (0, 999, 1000, 200000)]) == {"user:1000:name": 1000}
