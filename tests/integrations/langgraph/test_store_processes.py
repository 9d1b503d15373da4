"""Several processes, and processes that are killed: what was answered is there, and all of a batch or nothing."""

import asyncio
import signal

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore
from tests.support.forked import Forked, together


async def test_two_processes_write_the_same_items_at_once(database: DatabaseManager, database_url: str) -> None:
    store = AgentServiceStore(database)

    async with together(2, "tests.integrations.langgraph.writer", database_url, "once") as processes:
        for each in processes:
            assert await each.wait() == 0

    items = await store.asearch((), limit=1000)
    assert len(items) == 60
    assert all(each.value["pair"] == [each.value["n"]] * 2 for each in items)
    assert {each.key for each in await store.asearch(("shared",), limit=1000)} == {str(n) for n in range(20)}
    assert await store.alist_namespaces() == [("own", "0"), ("own", "1"), ("shared",)]
    await store.aclose()


async def kill_while_it_writes(database: DatabaseManager, url: str, *, answers: int) -> None:
    store = AgentServiceStore(database)
    with await Forked.start("tests.integrations.langgraph.writer", url, "forever", "0") as process:
        done = [int(await process.line()) for _ in range(answers)]
        process.send_signal(signal.SIGKILL)
        while line := await process.line():  # what it had said before it died
            done += [int(line)] if line.isdigit() else []
        assert await process.wait() == -signal.SIGKILL

    # One statement: a server may still do what the process asked last.
    items = await store.asearch((), limit=10_000)
    left, right = ({each.key for each in items if each.namespace == (side,)} for side in ("left", "right"))
    assert left == right
    assert {str(each) for each in done} <= left
    await store.aput(("after",), "k", {})
    await store.aclose()


async def test_what_a_killed_process_was_answered_is_there_and_nothing_is_half_done(
    database: DatabaseManager, database_url: str
) -> None:
    await kill_while_it_writes(database, database_url, answers=20)


@pytest.mark.faults
async def test_many_killed_processes_leave_nothing_half_done(database: DatabaseManager, database_url: str) -> None:
    for answers in range(1, 200, 10):
        await kill_while_it_writes(database, database_url, answers=answers)


@pytest.mark.faults
async def test_traffic_of_three_processes_with_cancelled_callers(database: DatabaseManager, database_url: str) -> None:
    async with together(3, "tests.integrations.langgraph.writer", database_url, "cancelling") as processes:
        for each in processes:
            assert await each.wait() == 0

    store = AgentServiceStore(database)
    left, right = [await store.asearch((side,), limit=10_000) for side in ("left", "right")]
    assert {each.key: each.value for each in left} == {each.key: each.value for each in right}
    await asyncio.gather(*(store.aput(("left",), str(n), {}) for n in range(100)))
    await store.aclose()
