"""Sixteen writers in four processes, a reader, callers that leave, and a process that is killed. On both engines."""

import asyncio
import signal
from contextlib import suppress

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.histories import Reader, WriterProcess, check, new_sessions

PROCESSES, TASKS = 4, 4


@pytest.mark.parametrize(
    "messages", [8, pytest.param(300, marks=[pytest.mark.faults, pytest.mark.timeout(600)])], ids=["short", "long"]
)
async def test_writers_in_four_processes_lose_nothing_and_rewrite_nothing(
    database: DatabaseManager, database_url: str, messages: int
) -> None:
    ids = await new_sessions(database, 3)
    reader = Reader(database, ids)
    reading = asyncio.create_task(reader.run())
    writers = [
        WriterProcess(database_url, f"p{each}", ids, tasks=TASKS, messages=messages) for each in range(PROCESSES)
    ]

    victim, *others = writers
    killed, *statuses = await asyncio.gather(
        victim.run(killed_after=TASKS * messages // 2), *(each.run() for each in others)
    )
    await check(database, ids, {k: v for each in writers for k, v in each.acknowledged.items()})
    again = WriterProcess(database_url, "p0", ids, tasks=TASKS, messages=messages)
    statuses.append(await again.run())
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading

    assert killed == -signal.SIGKILL
    assert statuses == [0] * PROCESSES
    acknowledged = {k: v for each in writers for k, v in each.acknowledged.items()}
    assert {k: again.acknowledged[k] for k in victim.acknowledged} == victim.acknowledged
    assert await check(database, ids, acknowledged | again.acknowledged) == PROCESSES * TASKS * messages
    assert sum(len(each.acknowledged) for each in others) == (PROCESSES - 1) * TASKS * messages
    assert reader.reads > 1
