"""An upgrade beside services of the version before: they append and read on, whoever holds a transaction open."""

import asyncpg
import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.earlier import make_earlier
from tests.database.old_load import under_load

HOLD = 6.0
"""Seconds that an append, and a read, stay open."""
LAST_OF_THE_OLD = "agent_service_0008"
"""The newest revision that the statements of the version before are for."""


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
