"""Many callers at once, and callers that leave: nothing is lost, doubled or halved. On both engines."""

import asyncio
import itertools
from typing import Any

import pytest

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession, list_sessions
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import call, output, said


async def test_first_writers_of_one_session_share_it_and_lose_nothing(
    new: NewSession, writer: SessionWriter | None, database: DatabaseManager
) -> None:
    turns = [[said(f"{task}"), call(f"c{task}", f"fc_{task}"), output(f"c{task}")] for task in range(30)]

    await asyncio.gather(*(new(writer=writer).add_items(turn) for turn in turns))

    found = await new().get_items()
    together = [found[first : first + 3] for first in range(0, len(found), 3)]
    assert sorted(together, key=lambda turn: int(str(turn[0].get("content")))) == turns
    assert len((await list_sessions("ada", database=database)).items) == 1


async def test_items_of_one_moment_stay_in_the_order_of_their_commits(new: NewSession) -> None:
    """Their timestamps are often the same; their numbers never are."""
    session = new()
    items = [said(str(number)) for number in range(40)]
    for item in items:
        await session.add_items([item])

    assert await session.get_items() == items
    assert await session.get_items(7) == items[-7:]
    numbered = await session.read_items(limit=100)
    assert [each.seq for each in numbered] == list(range(1, 41))
    assert all(one.created_at <= two.created_at for one, two in itertools.pairwise(numbered))


async def test_everybody_who_pops_gets_an_item_of_their_own(new: NewSession) -> None:
    items = [said(str(number)) for number in range(20)]
    await new().add_items(items)

    popped = await asyncio.gather(*(new().pop_item() for _ in range(25)))

    assert popped.count(None) == 5
    assert sorted(int(str(each.get("content"))) for each in popped if each) == list(range(20))
    assert await new().get_items() == []


async def test_a_file_that_many_connections_write_is_never_locked(sqlite_url: str) -> None:
    databases = [DatabaseManager(sqlite_url) for _ in range(3)]
    sessions = [
        DatabaseSession(f"chat {number % 2}", user_id="ada", database=database)
        for number, database in enumerate(databases * 4)
    ]

    async def work(number: int, session: Any) -> None:
        for turn in range(4):
            await session.add_items([said(f"{number} {turn}"), said("popped")])
            assert await session.pop_item() is not None
            assert await session.get_items(1)

    await asyncio.gather(*(work(number, session) for number, session in enumerate(sessions)))
    left = [len(await session.get_items()) for session in sessions[:2]]
    for database in databases:
        await database.close()

    assert left == [24, 24]


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
async def test_a_write_ends_as_it_began_although_its_caller_is_cancelled(
    new: NewSession, writer: SessionWriter | None, steps: int
) -> None:
    """After any number of turns of the event loop."""
    session = new(writer=writer)
    await session.add_items([said("before")])
    turn = [said("a"), call("c1", "fc_1"), output("c1")]

    adding = asyncio.create_task(session.add_items(turn))
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    cancelled = adding.cancel()
    again = asyncio.get_running_loop().call_soon(adding.cancel)
    outcome = (await asyncio.gather(adding, return_exceptions=True))[0]
    again.cancel()

    assert isinstance(outcome, asyncio.CancelledError) == cancelled
    assert await session.get_items() == [said("before"), *turn]
    popping = asyncio.create_task(session.pop_item())
    for _ in range(steps + 1):
        await asyncio.sleep(0)
    popping.cancel()
    await asyncio.gather(popping, return_exceptions=True)
    assert await session.get_items() == [said("before"), *turn[:-1]]
    clearing = asyncio.create_task(session.clear_session())
    for _ in range(steps + 1):
        await asyncio.sleep(0)
    clearing.cancel()
    await asyncio.gather(clearing, return_exceptions=True)
    assert await session.get_items() == []


async def test_a_cancelled_caller_is_told_so_even_where_the_write_fails(new: NewSession) -> None:
    lost = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    adding = asyncio.create_task(new(database=lost).add_items([said("a")]))
    await asyncio.sleep(0)
    adding.cancel()

    with pytest.raises(asyncio.CancelledError):
        await adding
    await lost.close()


async def test_a_timeout_around_an_append_is_a_timeout(new: NewSession) -> None:
    session = new()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await session.add_items([said("a")])

    assert await session.get_items() in ([], [said("a")])
