"""Processes that share a session, one of which is killed: each event is stored once, with all its state, or not."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService
from tests.integrations.adk.said import APP, USER, texts
from tests.support.forked import Forked


@asynccontextmanager
async def closing(database: DatabaseManager) -> AsyncIterator[DatabaseManager]:
    try:
        yield database
    finally:
        await database.close()


WORKER = "tests.integrations.adk.worker"


async def acknowledged(worker: Forked, number: int) -> list[str]:
    """Wait for so many acknowledgements of a worker."""
    return [await worker.line() for _ in range(number)]


async def check(service: AdkSessionService, promised: list[str]) -> None:
    session = await service.get_session(app_name=APP, user_id=USER, session_id="shared")
    assert session is not None
    stored = texts(session)
    assert max(Counter(stored).values()) == 1
    assert set(promised) <= set(stored)
    for name in ("a", "b"):
        numbers = [int(each.split()[1]) for each in stored if each.startswith(name)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert session.state.get(name, 0) == len(numbers)
        assert session.state.get(f"user:{name}", 0) == len(numbers) - len(numbers) % 2
    replayed: dict[str, object] = {}
    for event in session.events:
        replayed.update(event.actions.state_delta)
    assert session.state == replayed


async def kill_one(url: str, number: int) -> None:
    """Have two processes store so many events each, kill one on the way, and start it again."""
    async with closing(DatabaseManager(url)) as database, AdkSessionService(database) as service:
        await service.create_session(app_name=APP, user_id=USER, session_id="shared")
        with await Forked.start(WORKER, url, "a", str(number)) as first:
            with await Forked.start(WORKER, url, "b", str(number)) as second:
                assert await second.line() == "0"
                promised = await acknowledged(second, number // 3)
            # The second was killed at the end of its block, wherever it was; the first goes on meanwhile.
            await check(service, promised)
            with await Forked.start(WORKER, url, "b", str(number)) as third:
                assert await first.line() == "0"
                promised += await acknowledged(first, number)
                first.stdin.close()
                stored = int(await third.line())
                assert number // 3 <= stored <= number
                promised += await acknowledged(third, number - stored)
                third.stdin.close()
                assert await first.wait() == await third.wait() == 0

        await check(service, promised)
        session = await service.get_session(app_name=APP, user_id=USER, session_id="shared")
        assert session is not None
        assert len(session.events) == 2 * number


async def test_a_killed_process_leaves_no_half_of_an_event(postgres_url: str):
    await kill_one(postgres_url, 12)


@pytest.mark.faults
async def test_a_process_killed_under_load_leaves_no_half_of_an_event(database_url: str):
    await kill_one(database_url, 150)
