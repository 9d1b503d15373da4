"""Connections that the pool has no room for are closed by the task that gives them back, even while it is cancelled."""

import asyncio
import logging
import threading

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
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
