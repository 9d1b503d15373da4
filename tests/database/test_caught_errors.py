"""Errors of statements that the caller catches: PostgreSQL then rolls back whatever the commit is told to keep."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import bindparam, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Integer

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository

REMEDY = "an earlier statement of this transaction failed and its error was caught"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(postgres_url)
    yield manager
    await manager.close()


async def count(database: DatabaseManager) -> int:
    async with database.session() as db:
        return len(await SessionRepository(db).get_user_sessions("ada"))


async def fail(db: AsyncSession) -> None:
    with suppress(DBAPIError):
        await db.execute(text("SELECT 1 / 0"))


async def create_and_fail(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        await fail(db)


async def test_a_commit_that_stores_nothing_is_an_error(database: DatabaseManager) -> None:
    with pytest.raises(DatabaseError, match=REMEDY):
        await create_and_fail(database)

    assert await count(database) == 0


async def test_so_is_a_commit_within_the_block(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        await fail(db)
        with pytest.raises(DBAPIError):
            await db.commit()
        await db.rollback()
        await SessionRepository(db).create(Session(user_id="ada"))

    assert await count(database) == 1


async def test_what_a_savepoint_has_undone_does_not_count(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        with suppress(DBAPIError):
            async with db.begin_nested():
                await fail(db)
                await db.execute(text("SELECT 1"))

    assert await count(database) == 1


async def test_nor_does_what_was_never_sent(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        with pytest.raises(DBAPIError):
            await db.execute(text("SELECT :number").bindparams(bindparam("number", "seven", Integer)))

    assert await count(database) == 1


async def test_a_transaction_without_an_error_asks_nothing(database: DatabaseManager) -> None:
    await count(database)
    async with database.session() as db:
        await fail(db)
        await db.rollback()
    sent = list[str]()
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    for _ in range(3):
        await count(database)

    assert len(sent) == 3
