"""Many writers of one session, in several processes: nothing lost, no gap, no history rewritten. On both engines."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionLimits, SessionRepository
from tests.database.writer import write
from tests.support.forked import Forked

PROCESSES, TASKS, MESSAGES = 2, 8, 12
TOTAL = PROCESSES * TASKS * MESSAGES


@pytest.fixture
async def session(database: DatabaseManager) -> Session:
    async with database.session() as db:
        return await SessionRepository(db).create(Session(user_id="ada"))


async def history(database: DatabaseManager, session: Session) -> list[Any]:
    async with database.session() as db:
        loaded = await SessionRepository(db).get_session_with_messages(session.id)
    assert loaded is not None
    return [(each.seq, each.content) for each in loaded.messages]


async def test_sixteen_writers_in_two_processes_and_a_reader(
    database: DatabaseManager, database_url: str, session: Session
) -> None:
    seen: list[Any] = []
    with ExitStack() as processes:
        writers = [
            processes.enter_context(await start_writer(database_url, session, f"process{number}"))
            for number in range(PROCESSES)
        ]
        waiting = asyncio.gather(*(each.wait() for each in writers))
        while not waiting.done():
            now = await history(database, session)
            assert now[: len(seen)] == seen
            seen = now
            await asyncio.sleep(0.02)
        assert await waiting == [0] * PROCESSES

    final = await history(database, session)
    async with database.session() as db:
        row = await SessionRepository(db).get(session.id)
    assert final[: len(seen)] == seen
    assert [seq for seq, _ in final] == list(range(1, TOTAL + 1))
    assert len({content for _, content in final}) == TOTAL
    assert row is not None
    assert (row.total_messages, row.last_seq, row.total_tokens) == (TOTAL, TOTAL, TOTAL)
    for process in range(PROCESSES):
        for task in range(TASKS):
            own = [content for _, content in final if content.startswith(f"process{process}-{task}-")]
            assert own == [f"process{process}-{task}-{number}" for number in range(MESSAGES)]


async def start_writer(url: str, session: Session, name: str) -> Forked:
    arguments = [url, str(session.id), name, str(TASKS), str(MESSAGES)]
    return await Forked.start("tests.database.writer", *arguments, environment={"SESSION_MAX_MESSAGES": "1000000"})


async def test_tasks_of_one_process_take_turns(
    database: DatabaseManager, database_url: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_MAX_MESSAGES", "1000000")

    await write(database_url, str(session.id), "here", tasks=16, messages=5)

    assert [seq for seq, _ in await history(database, session)] == list(range(1, 81))


async def test_retries_at_the_same_time_add_one_message(database: DatabaseManager, session: Session) -> None:
    async def append(number: int) -> tuple[int, Any]:
        async with database.session() as db:
            repo = SessionRepository(db)
            message = {"role": "user", "content": str(number), "token_count": 3}
            added = await repo.add_message_to_session(session.id, message, client_id="m1")
            return added.seq, added.content

    results = await asyncio.gather(*map(append, range(10)))
    async with database.session() as db:
        following = await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        row = await SessionRepository(db).get(session.id)

    assert len(set(results)) == 1
    assert results[0][0] == 1
    assert following.seq == 2
    assert row is not None
    assert (row.total_messages, row.total_tokens) == (2, 3)


async def test_of_writers_that_expect_the_same_one_wins(database: DatabaseManager, session: Session) -> None:
    async def append() -> bool:
        async with database.session() as db:
            try:
                await SessionRepository(db).add_message_to_session(session.id, {"role": "user"}, expected_seq=0)
            except SessionConflictError:
                return False
            return True

    assert sum(await asyncio.gather(*(append() for _ in range(10)))) == 1
    assert len(await history(database, session)) == 1


async def test_what_is_decided_by_a_locked_session_is_never_lost(database: DatabaseManager, session: Session) -> None:
    together = asyncio.Barrier(4)

    async def count() -> None:
        async with database.session() as db:
            repo = SessionRepository(db)
            seen = await repo.get(session.id)
            assert seen is not None
            await together.wait()
            locked = await repo.get(session.id, lock=True)
            assert locked is not None
            await repo.set_session_context(session.id, {"n": locked.context.get("n", 0) + 1})

    await asyncio.gather(*(count() for _ in range(4)))

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert (found.context, found.version) == ({"n": 4}, 5)


async def test_pops_at_the_same_time_remove_different_messages(database: DatabaseManager, session: Session) -> None:
    async with database.session() as db:
        for number in range(10):
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user", "content": str(number)})

    async def pop() -> Any:
        async with database.session() as db:
            popped = await SessionRepository(db).pop_message(session.id)
            return popped and popped.content

    popped = await asyncio.gather(*(pop() for _ in range(12)))

    assert sorted(each for each in popped if each is not None) == [str(number) for number in range(10)]
    assert await history(database, session) == []


async def test_a_cancelled_append_is_wholly_done_or_undone(database: DatabaseManager, session: Session) -> None:
    async def append(number: int) -> None:
        async with database.session() as db:
            repo = SessionRepository(db, limits=SessionLimits(10_000, session.expires_at - session.created_at))
            await repo.add_message_to_session(session.id, {"role": "user", "content": str(number)})

    tasks = []
    for number in range(40):
        tasks.append(asyncio.create_task(append(number)))
        for _ in range(number):
            await asyncio.sleep(0)
        tasks[-1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await append(40)

    final = await history(database, session)
    async with database.session() as db:
        row = await SessionRepository(db).get(session.id)
    done = {str(number) for number, result in enumerate(results) if result is None}
    assert done <= {content for _, content in final}
    assert [seq for seq, _ in final] == list(range(1, len(final) + 1))
    assert row is not None
    assert row.total_messages == len(final)
