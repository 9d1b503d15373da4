"""Who waits for a connection of a pool gets one in order, and nothing that is given is ever lost."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.engine import DatabaseManager
from tests.support.waiting import until

AWAY = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"
LONG = 120.0
"""Seconds that nobody waits for a connection, unless it is lost."""


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[DatabaseManager]:
    """A database with one connection, which is open."""
    database = DatabaseManager(database_url, pool_size=1, max_overflow=0, pool_timeout=LONG)
    await database.prepare()
    async with database.session() as db:
        await db.connection()
    yield database
    await database.close()


async def opened(db: AsyncSession) -> None:
    await db.connection()


async def yields(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_tasks_that_ask_again_and_again_take_turns(narrow: DatabaseManager):
    tasks, turns = 10, 5
    served: list[int] = []

    async def ask(task: int) -> None:
        for _ in range(turns):
            async with narrow.session() as db:
                await opened(db)
                served.append(task)
                await yields(3)

    await asyncio.gather(*map(ask, range(tasks)))

    assert served == [*range(tasks)] * turns


async def test_a_connection_that_was_given_to_a_cancelled_task_goes_to_the_next(narrow: DatabaseManager):
    for turns in range(12):
        served: list[str] = []

        async def ask(name: str, served: list[str] = served) -> None:
            async with narrow.session() as db:
                await opened(db)
                served.append(name)

        async with narrow.session() as db:
            await opened(db)
            first, second = asyncio.create_task(ask("first")), asyncio.create_task(ask("second"))
            await yields(5)
        await yields(turns)
        first.cancel()
        async with asyncio.timeout(LONG / 2):
            await asyncio.wait([first, second])

        assert second.exception() is None
        assert served in (["second"], ["first", "second"])
        assert narrow.get_metrics() == {"open": 1, "in_use": 0, "idle": 1, "limit": 1}


async def test_a_connection_that_a_cancelled_task_gives_back_to_a_full_pool_is_closed(database_url: str):
    database = DatabaseManager(database_url, pool_size=1, max_overflow=1, pool_timeout=LONG)
    await database.prepare()
    threads = threading.active_count()  # SQLite has one for each connection

    async def ask() -> None:
        async with database.engine.connect():
            pytest.fail("it was cancelled before")

    for _ in range(3):
        first, second = await database.engine.connect(), await database.engine.connect()
        task = asyncio.create_task(ask())
        await yields(3)
        await first.close()
        await second.close()
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled()
        assert database.get_metrics() == {"open": 1, "in_use": 0, "idle": 1, "limit": 2}
    await until(lambda: threading.active_count() <= threads)
    await database.close()


async def test_who_waited_too_long_is_forgotten(database_url: str):
    database = DatabaseManager(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    await database.prepare()
    async with database.session() as held:
        await opened(held)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError, match="no connection became free in time"):
                async with database.session() as db:
                    await opened(db)
    async with database.session() as db:
        await opened(db)
    metrics = database.get_metrics()
    await database.close()

    assert (metrics["in_use"], metrics["idle"]) == (0, 1)


async def test_who_waits_while_no_connection_can_be_made_is_told_so_at_once():
    database = DatabaseManager(AWAY, pool_size=2, max_overflow=1, pool_timeout=LONG)

    async def ask() -> None:
        async with database.session() as db:
            await opened(db)

    async with asyncio.timeout(LONG / 2):
        answers = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
    metrics = database.get_metrics()
    await database.close()

    assert {type(each) for each in answers} == {DatabaseUnavailableError}
    assert all("cannot connect" in str(each) for each in answers)
    assert (metrics["in_use"], metrics["idle"]) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_is_cancelled_the_others_are_served_and_every_place_can_be_used_again(
    database_url: str, seed: int
):
    chance = random.Random(seed)
    database = DatabaseManager(database_url, pool_size=2, max_overflow=1, pool_timeout=LONG)
    await database.prepare()

    async def ask(turns: int) -> None:
        async with database.session() as db:
            await opened(db)
            await yields(turns)

    tasks = [asyncio.create_task(ask(chance.randrange(6))) for _ in range(60)]
    left = chance.sample(tasks, 30)
    for each in left:
        await yields(chance.randrange(4))
        each.cancel()
    async with asyncio.timeout(LONG / 2):
        await asyncio.wait(tasks)
    served = [each for each in tasks if each not in left]
    after = database.get_metrics()
    together = asyncio.Barrier(3)

    async def hold() -> None:
        async with database.session() as db:
            await opened(db)
            await together.wait()

    async with asyncio.timeout(LONG / 2):
        await asyncio.gather(hold(), hold(), hold())
    await database.close()

    assert [each.exception() for each in served] == [None] * len(served)
    assert after["in_use"] == 0
