"""Whatever locks several sessions locks them in the order of their ids, so that nobody waits in a circle. PostgreSQL.

The rows stand in the table in the opposite order, which is the one that a statement takes that does not say its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.context.session import SessionContextStore
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.queries.watch import watch
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.held import free, held, somebody_waits

IDS = [UUID(int=31 * number) for number in range(1, 7)]  # a set of them comes from the highest to the lowest
LOWEST, HIGHEST = IDS[0], IDS[-1]
MESSAGE = {"role": "user", "content": "Hi", "token_count": 1}

Act = Callable[[DatabaseManager], Coroutine[Any, Any, Any]]


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    """Sessions whose time is over, stored from the highest id to the lowest."""
    manager = DatabaseManager(postgres_url)
    async with manager.session() as db:
        repo = SessionRepository(db)
        for id_ in reversed(IDS):
            await repo.create(Session(id=id_, user_id="ada", expires_at=datetime.now(UTC) - timedelta(hours=1)))
        await db.execute(text("ANALYZE agent_service_sessions"))  # so few rows are read from the table itself
    yield manager
    await manager.close()


async def in_repository(database: DatabaseManager, call: Callable[[SessionRepository], Awaitable[Any]]) -> None:
    async with database.session() as db:
        await call(SessionRepository(db))


async def append_to_all(database: DatabaseManager) -> None:
    async with SessionWriter(database) as writer:
        await asyncio.gather(*(writer.append(id_, MESSAGE) for id_ in reversed(IDS)))


def contexts(database: DatabaseManager) -> SessionContextStore:
    return SessionContextStore(database.session)


ACTS: dict[str, Act] = {
    "a batch of a writer": append_to_all,
    "a new status of many": lambda database: in_repository(
        database, lambda repo: repo.bulk_update_session_status(reversed(IDS), "failed")
    ),
    "completing what expired": lambda database: in_repository(database, lambda repo: repo.cleanup_expired_sessions()),
    "erasing a user": lambda database: in_repository(database, lambda repo: repo.erase_user("ada")),
    "replacing many contexts": lambda database: contexts(database).set_many({id_: {"a": 1} for id_ in reversed(IDS)}),
    "emptying many contexts": lambda database: contexts(database).delete_many(list(reversed(IDS))),
}


@pytest.mark.parametrize("act", ACTS)
async def test_sessions_are_locked_from_the_lowest_id_upwards(database: DatabaseManager, act: str) -> None:
    async with held(database, LOWEST):
        acting = asyncio.create_task(ACTS[act](database))
        await somebody_waits(database)
        others = await free(database, IDS[1:])
    await acting

    assert others == set(IDS[1:])


async def test_a_repair_locks_from_the_lowest_id_upwards(database: DatabaseManager) -> None:
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_sessions SET total_messages = 7"))
        for id_ in reversed(IDS):  # puts the rows in the opposite order once more
            await db.execute(text("UPDATE agent_service_sessions SET title = 'moved' WHERE id = :id"), {"id": id_})
        await db.execute(text("ANALYZE agent_service_sessions"))

    async with held(database, LOWEST):
        acting = asyncio.create_task(in_repository(database, lambda repo: repo.recount()))
        await somebody_waits(database)
        others = await free(database, IDS[1:])
    await acting

    assert others == set(IDS[1:])


@pytest.mark.parametrize("act", ["pop", "remove"])
async def test_forks_are_locked_after_their_parent_and_from_the_lowest_id_upwards(
    database: DatabaseManager, act: str
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        parent = (await repo.create(Session(user_id="bob"))).id
        await repo.add_message_to_session(parent, MESSAGE)
        forks = sorted([(await repo.fork(parent, 1)).id for _ in range(4)])
    async with database.session() as db:
        for id_ in reversed(forks):
            await db.execute(text("UPDATE agent_service_sessions SET title = 'moved' WHERE id = :id"), {"id": id_})
        await db.execute(text("ANALYZE agent_service_sessions"))

    async with held(database, forks[0]):
        acting = asyncio.create_task(
            in_repository(
                database, lambda repo: repo.pop_message(parent) if act == "pop" else repo.delete(parent, hard=True)
            )
        )
        await somebody_waits(database)
        others = await free(database, [parent, *forks[1:]])
    await acting

    assert others == set(forks[1:])


@pytest.mark.parametrize("act", ["a batch of a writer", "a new status of many", "completing what expired"])
async def test_the_key_of_a_session_that_is_changed_stays_free_for_others_to_refer_to(
    database: DatabaseManager, act: str
) -> None:
    async with held(database, HIGHEST):
        acting = asyncio.create_task(ACTS[act](database))
        await somebody_waits(database)
        changeable = await free(database, IDS[:-1])
        referable = await free(database, IDS[:-1], "KEY SHARE")
    await acting

    assert (changeable, referable) == (set(), set(IDS[:-1]))


async def test_a_batch_that_waits_for_another_one_finds_what_that_one_appended(database: DatabaseManager) -> None:
    async def append(db: AsyncSession, content: str) -> list[tuple[int, Any]]:
        messages = [{**MESSAGE, "content": content}, {**MESSAGE, "content": f"more of {content}"}]
        added = await SessionRepository(db).add_messages_to_session(LOWEST, messages, client_ids=["m", None])
        return [(each.seq, each.content) for each in added]

    async def append_too() -> list[tuple[int, Any]]:
        async with database.session() as db:
            return await append(db, "second")

    async with database.session() as db:
        first = await append(db, "first")
        waiting = asyncio.create_task(append_too())
        await somebody_waits(database)

    assert first == [(1, "first"), (2, "more of first")]
    assert await waiting == [(1, "first"), (3, "more of second")]


async def test_forks_of_one_session_do_not_wait_for_one_another(database: DatabaseManager) -> None:
    async with database.session() as one, database.session() as other:
        first = await SessionRepository(one).fork(LOWEST, 0)
        await other.execute(text("SET LOCAL lock_timeout = '10s'"))
        second = await SessionRepository(other).fork(LOWEST, 0)

    assert first.parent_session_id == second.parent_session_id == LOWEST


async def test_a_session_that_is_being_changed_is_not_waited_for_to_be_watched(database: DatabaseManager) -> None:
    async with held(database, LOWEST), database.session() as db:
        await db.execute(text("SET LOCAL lock_timeout = '10s'"))
        during = (await db.execute(watch("", LOWEST))).all()
    async with database.session() as db:
        after = (await db.execute(watch("", LOWEST))).all()

    assert (during, after) == ([], [(LOWEST,)])


@pytest.mark.parametrize("act", ["write", "remove"])
async def test_keys_of_a_table_are_locked_from_the_lowest_upwards(database: DatabaseManager, act: str) -> None:
    table = KeyValueTable(lambda: database._sessions())
    keys = ["a", "b", "c", "d"]
    for key in reversed(keys):
        await table.write({key: "{}"})

    async with database.session() as db:
        await db.execute(text("SELECT key FROM agent_service_context_store WHERE key = 'a' FOR UPDATE"))
        acting = asyncio.create_task(
            table.write(dict.fromkeys(reversed(keys), "[]")) if act == "write" else table.remove(list(reversed(keys)))
        )
        await somebody_waits(database)
        async with database.session() as other:
            free_ones = await other.execute(text("SELECT key FROM agent_service_context_store FOR UPDATE SKIP LOCKED"))
            found = set(free_ones.scalars())
            await other.rollback()
        await db.rollback()
    await acting

    assert found == set(keys[1:])
