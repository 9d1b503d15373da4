"""Connections that the pool has no room for are closed by the task that gives them back, even while it is cancelled."""

import asyncio
import logging
import threading

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.cancelled import cancelled_at_every_wait
from tests.support.waiting import until


async def test_a_task_that_is_cancelled_anywhere_closes_its_connection_and_logs_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    database = DatabaseManager(database_url, pool_size=1, max_overflow=1)
    await database.prepare()
    threads = threading.active_count()  # SQLite has one for each connection

    async def overflow(kept: asyncio.Event, given_back: asyncio.Event) -> None:
        async with database.session() as db:
            await db.execute(text("SELECT 1"))
            kept.set()
            await given_back.wait()

    for turns in range(40):
        kept, given_back = asyncio.Event(), asyncio.Event()
        async with database.session() as first:
            await first.execute(text("SELECT 1"))
            task = asyncio.create_task(overflow(kept, given_back))
            await kept.wait()
        given_back.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        while database.get_metrics()["in_use"]:
            await asyncio.sleep(0.001)
    metrics = database.get_metrics()
    # A close that a cancelled task has begun goes on by itself, and calls the event loop at its end.
    await until(lambda: threading.active_count() <= threads)
    await database.close()

    assert [each.getMessage() for each in caplog.records] == []
    assert metrics["idle"] == 1


@pytest.mark.parametrize("again", [0, 1, 3])
async def test_a_task_that_is_cancelled_while_it_connects_leaves_no_connection(database_url: str, again: int):
    """A timeout and a shutdown may both cancel one task."""
    threads = threading.active_count()  # SQLite has one for each connection

    async def connect() -> None:
        database = DatabaseManager(database_url)
        try:
            async with database.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            assert database.get_metrics()["in_use"] == 0
            made.append(database)

    made: list[DatabaseManager] = []
    async for _ in cancelled_at_every_wait(connect, again=again):
        await made.pop().close()
    await until(lambda: threading.active_count() <= threads)
    # On PostgreSQL the fixture says whether a connection is left.
