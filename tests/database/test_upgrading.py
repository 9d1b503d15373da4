"""A database of the first revision, with conversations in it, goes to the newest one and back in place."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import column, insert, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema.migration import current_of
from tests.servers.prepared import Prepare

FIRST = "agent_service_0001"


def first(model: Any, *later: str) -> Any:
    """The table as the first revision made it."""
    columns = model.__table__.c
    return table(model.__table__.name, *(column(each.name, each.type) for each in columns if each.name not in later))


SESSIONS: Any = first(Session, "watched_until", "truncations")
MESSAGES: Any = first(SessionMessage, "tenant_id")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, prepare: Prepare) -> str:
    """A database of the first revision."""
    return prepare(request.param, made_first)


async def made_first(url: str) -> None:
    database = DatabaseManager(url)
    await database.upgrade(FIRST)
    await database.close()


async def revision_of(database: DatabaseManager) -> str | None:
    async with database.engine.connect() as connection:
        return await connection.run_sync(lambda each: current_of(each, names_of(each)))


async def fill(connection: AsyncConnection) -> UUID:
    now, session_id = SYSTEM_CLOCK.now(), uuid7()
    values = {
        "id": session_id,
        "tenant_id": "acme",
        "user_id": "ada",
        "title": "Before the upgrade",
        "status": "active",
        "context": {"nested": {"a": [1, None]}},
        "metadata": {"z": 1, "a": "\x00"},
        "last_seq": 3,
        "total_messages": 3,
        "total_tokens": 0,
        "version": 4,
        "created_at": now,
        "updated_at": now,
        "last_activity_at": now,
        "expires_at": now,
    }
    await connection.execute(insert(SESSIONS).values(values))
    for seq in (1, 2, 3):
        data = {"role": "user", "content": f"needle {seq}"}
        message = {"session_id": session_id, "seq": seq, "data": data, "created_at": now, **data}
        await connection.execute(insert(MESSAGES).values(message))
    return session_id


async def contents(database: DatabaseManager) -> list[Any]:
    async with database.engine.connect() as connection:
        sessions = (await connection.execute(select(SESSIONS))).all()
        messages = (await connection.execute(select(MESSAGES).order_by(MESSAGES.c.seq))).all()
    return [*sessions, *messages]


async def test_up_down_and_up_again_keeps_every_conversation(url: str) -> None:
    database = DatabaseManager(url)
    async with database.engine.begin() as connection:
        session_id = await fill(connection)
    before = await contents(database)

    await database.upgrade()
    up = await contents(database), await database.check()
    await database.downgrade(FIRST)
    down = await contents(database), await database.check()
    await database.upgrade()
    again = await contents(database), await database.check()
    async with database.session() as db:
        repo = SessionRepository(db, "acme")
        added = await repo.add_message_to_session(session_id, {"role": "user", "content": "needle 4"})
        history = await repo.get_messages(session_id)
        found = await repo.search_messages("ada", "needle")
    await database.close()

    assert len(before) == 4
    assert up[0] == down[0] == again[0] == before
    assert (up[1].ok, down[1].current, again[1].ok) == (True, FIRST, True)
    assert added.seq == 4
    assert [each.content for each in history] == [f"needle {seq}" for seq in (1, 2, 3, 4)]
    assert len(found) == 4


async def test_each_revision_can_be_taken_back_and_made_again(database_url: str) -> None:
    database = DatabaseManager(database_url)
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))

    states = []
    while (above := await revision_of(database)) != FIRST:
        await database.downgrade("-1")
        below = await revision_of(database)
        await database.upgrade("+1")
        states.append(await revision_of(database) == above)
        await database.downgrade("-1")
        assert await revision_of(database) == below
    await database.upgrade()
    final = await database.check()
    async with database.session() as db:
        left = await SessionRepository(db).get_user_sessions("ada")
    await database.close()

    assert states
    assert all(states)
    assert final.ok
    assert len(left) == 1
