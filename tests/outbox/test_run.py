"""The task that drains: woken by commits, looking by itself, and never stopped by what fails."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import text

from agent_service.core.errors import CacheValueError, ConfigurationError
from agent_service.infrastructure.cache.factory import get_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import close_database, get_session
from agent_service.infrastructure.outbox import run_outbox
from agent_service.infrastructure.outbox.counters import counters
from tests.outbox.test_drain import GOLDEN, ask, put
from tests.servers.proxy import TcpProxy
from tests.support.outbox import NAMESPACE, configure, rows, until_drained
from tests.support.waiting import until


@asynccontextmanager
async def running(interval: float) -> AsyncIterator["asyncio.Task[None]"]:
    """Drain in the background until the block ends."""
    task = asyncio.create_task(run_outbox(interval), name="outbox")
    try:
        yield task
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of the outbox."""
    return [record.getMessage() for record in caplog.records if "outbox" in record.getMessage()]


async def gone(others: RedisCache[object], key: str) -> bool:
    """Return whether an entry was invalidated."""
    return not await others.exists(key)


async def told(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    """Return whether that much was logged: the last line comes after the last row has gone."""
    return len(said(caplog)) >= times


async def test_a_commit_is_followed_without_a_look(house: TcpProxy, others: RedisCache[object]):
    """It would look by itself after an hour."""
    await others.set_many({f"k{n}": 1 for n in range(20)})
    async with running(interval=3600):
        for n in range(20):
            await ask(f"k{n}")
            await until(partial(gone, others, f"k{n}"))
        await until_drained()

    assert await others.get_many([f"k{n}" for n in range(20)]) == {}


async def test_what_another_process_left_is_found_by_looking(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", 1)
    async with running(interval=0.05):
        await until_drained()
        await put(GOLDEN)
        await until_drained()

    assert await others.lookup("ada") is MISS


async def test_what_was_left_before_the_start_is_drained_first(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", 1)
    await put(GOLDEN)
    async with running(interval=3600):
        await until_drained()

    assert await others.lookup("ada") is MISS


async def test_an_outage_of_redis_is_logged_once_and_ends_by_itself(
    house: TcpProxy, others: RedisCache[object], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    await others.set_many({"ada": 1, "grace": 2})
    before = counters.failures

    async def failed_often() -> bool:
        return counters.failures >= before + 3

    async with running(interval=3600):
        house.stall()
        await ask("ada")
        await until(failed_often)
        await ask("grace")
        left = await rows()
        house.resume()
        await until_drained()

    assert left == 2
    assert await others.get_many(["ada", "grace"]) == {}
    assert said(caplog) == []
    assert ["does not serve" in each for each in caplog.messages if "Redis" in each][:1] == [True]


async def test_a_failing_database_is_logged_once_and_waited_for(
    house: TcpProxy, others: RedisCache[object], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    await others.set("ada", 1)
    await ask("ada")
    async with get_session() as db:
        await db.execute(text("ALTER TABLE agent_service_cache_outbox RENAME body TO elsewhere"))
    before = counters.failures

    async def failed_often() -> bool:
        return counters.failures >= before + 3

    async with running(interval=3600):
        await until(failed_often)
        async with get_session() as db:
            await db.execute(text("ALTER TABLE agent_service_cache_outbox RENAME elsewhere TO body"))
        await until_drained()
        await until(partial(told, caplog, 2))

    assert await others.lookup("ada") is MISS
    assert len(said(caplog)) == 2
    assert "db upgrade" in said(caplog)[0]


async def test_cancelling_it_in_the_middle_leaves_the_row_to_the_next(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", 1)
    await get_cache(NAMESPACE)
    accepted = house.accepted
    house.stall()

    async def under_way() -> bool:
        return house.accepted > accepted

    await ask("ada")
    async with running(interval=3600):
        await until(under_way)
    left = await rows()
    house.resume()
    async with running(interval=3600):
        await until_drained()

    assert left == 1
    assert await others.lookup("ada") is MISS


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_cancelling_it_ends_in_time_though_the_database_hangs(
    house: TcpProxy, postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent_service.infrastructure.outbox.run._PATIENCE", 0.3)
    await close_database()
    async with TcpProxy(postgres_url) as way:
        configure(monkeypatch, database_url=way.url, db_statement_timeout="2")
        await ask("ada")
        house.stall()
        accepted = house.accepted

        async def under_way() -> bool:
            return house.accepted > accepted

        task = asyncio.create_task(run_outbox(), name="outbox")
        await until(under_way)
        way.stall()
        task.cancel()
        started = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
        took = time.monotonic() - started

        async def given_up() -> bool:
            return not [each for each in asyncio.all_tasks() if each.get_name() == "outbox"]

        await until(given_up)
        way.resume()
        await close_database()

    assert 0.2 < took < 10


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), True, "1", None])
async def test_an_interval_that_cannot_be_is_refused(interval: float):
    with pytest.raises(CacheValueError, match="interval must be seconds above 0"):
        await run_outbox(interval)


async def test_a_setting_that_cannot_be_used_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, database_url="mysql://nowhere")

    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await run_outbox()
