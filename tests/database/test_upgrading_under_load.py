"""An upgrade beside services of the version before: they append and read on, whoever holds a transaction open."""

import asyncio
import time

import asyncpg
import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema import revisions
from tests.database.earlier import make_earlier
from tests.database.old_load import under_load

HOLD = 6.0
"""Seconds that an append, and a read, stay open."""
LAST_OF_THE_OLD = max(each for each in revisions.known() if each <= "agent_service_0009")
"""The newest revision at which the statements of the version before work."""


@pytest.mark.parametrize(
    "start", ["0001", *(pytest.param(f"{each:04d}", marks=pytest.mark.faults) for each in range(2, 8))]
)
async def test_nobody_waits_for_long_while_an_upgrade_waits_for_others(empty_postgres_url: str, start: str) -> None:
    make_earlier(empty_postgres_url)
    database = DatabaseManager(empty_postgres_url)
    await database.upgrade()
    await database.downgrade(start)

    async with under_load(empty_postgres_url, hold=HOLD) as load:
        await database.upgrade(LAST_OF_THE_OLD)
    connection = await asyncpg.connect(empty_postgres_url.replace("+asyncpg", ""))
    stored = dict(await connection.fetch("SELECT session_id, count(*) FROM public.session_messages GROUP BY 1"))
    await connection.close()
    await database.upgrade()
    state = await database.check()
    await database.close()
    print(f"from {start}: {load.figures}")  # noqa: T201 - figures

    assert state.ok
    assert {each: number for each, number in load.appended.items() if number} == {
        each: number for each, number in stored.items() if each in load.appended
    }
    # A step waits 0.8 seconds, and a transaction that stays open is what it waits for. Without steps it is all of HOLD.
    assert max(load.appends + load.reads) < HOLD / 2


async def test_this_version_appends_and_reads_while_the_newest_revision_is_made(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await database.downgrade("-1")
    times: list[float] = []
    upgraded, hold = asyncio.Event(), HOLD / 2

    async def converse(name: str) -> int:
        appended = 0
        async with database.session() as db:
            session = await SessionRepository(db, "acme").create(Session(user_id=name))
        while not upgraded.is_set():
            started = time.monotonic()
            async with database.session() as db:
                repo = SessionRepository(db, "acme")
                await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
                await repo.get_messages(session.id, limit=5)
                await repo.get_user_sessions(name)
            appended += 1
            times.append(time.monotonic() - started)
        async with database.session() as db:
            return appended - len(await SessionRepository(db, "acme").get_messages(session.id, limit=10_000))

    async def stay_open() -> None:
        async with database.session() as db:
            repo = SessionRepository(db, "acme")
            session = await repo.create(Session(user_id="slow"))
            await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
            await asyncio.sleep(hold)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stay_open())
        conversations = [tasks.create_task(converse(name)) for name in ("ada", "bob", "eve")]
        while len(times) < 10:
            await asyncio.sleep(0.01)
        await database.upgrade()
        upgraded.set()
    state = await database.check()
    await database.close()
    print(f"{len(times)} appends with reads, the slowest {max(times):.2f} s")  # noqa: T201 - figures

    assert state.ok
    assert [each.result() for each in conversations] == [0, 0, 0]
    assert max(times) < HOLD / 2
