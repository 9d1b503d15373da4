"""A session that was deleted is like one that never was, for every method but those that bring it back or remove it."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent_service.context.session import SessionContextStore
from agent_service.core.errors import AgentServiceError, SessionNotFoundError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.canary.attacks import BY_ID, CONTEXTS, OTHERWISE, STORE, write
from tests.canary.estate import AGENT, CLIENT_IDS, EXTERNAL, SECRET, TITLE, USER, Estate, leaked, message, spelled

KNOWS_HIDDEN_ONES = {
    "delete", "restore", "export_user", "import_user", "purge_deleted", "erase_user", "get_or_create",
}  # fmt: skip


@pytest.fixture
async def hidden(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = Session(user_id=USER, agent_id=AGENT, title=TITLE, external_id=EXTERNAL, context={SECRET: 1})
        id_ = (await repo.create(session)).id
        await repo.add_messages_to_session(id_, [message(SECRET)] * 3, client_ids=CLIENT_IDS)
        await repo.delete(id_)
    return id_


async def test_it_is_not_found_by_its_id(database: DatabaseManager, hidden: UUID) -> None:
    calls = [(method, call) for method in BY_ID.keys() - KNOWS_HIDDEN_ONES for call in BY_ID[method]]
    for method, call in calls:
        told = []
        for id_ in (hidden, uuid4()):
            try:
                async with database.session() as db:
                    told.append(spelled(await call(SessionRepository(db), id_)))
            except AgentServiceError as exc:
                told.append(spelled(exc).replace(str(id_), "the id"))
        assert told[0] == told[1], method
    await stays_as_it_was(database, hidden)


async def test_it_stands_in_no_list_sum_or_search(database: DatabaseManager, hidden: UUID) -> None:
    calls = [(method, call) for method in OTHERWISE.keys() - KNOWS_HIDDEN_ONES for call in OTHERWISE[method]]
    for method, call in calls:
        async with database.session() as db:
            told: Any = await call(SessionRepository(db), Estate("", hidden, hidden, hidden, hidden))
        assert leaked(told) == [], method
        assert str(hidden) not in spelled(told), method
        numbers = told.values() if isinstance(told, dict) else [told]
        assert all(getattr(each, "total_sessions", 0) == 0 for each in numbers), method
        assert not isinstance(told, int) or told == 0, method
    await stays_as_it_was(database, hidden)


async def test_a_writer_finds_neither_it_nor_its_messages(database: DatabaseManager, hidden: UUID) -> None:
    answers = await write(database, "", hidden, [*CLIENT_IDS, None, "new"])
    async with SessionWriter(database) as writer:
        appends = [writer.append(hidden, message("x"), client_id=each) for each in (*CLIENT_IDS, None, "new")]
        answers += await asyncio.gather(*appends, return_exceptions=True)

    assert {type(each) for each in answers} == {SessionNotFoundError}
    await stays_as_it_was(database, hidden)


async def test_its_context_is_not_there(database: DatabaseManager, hidden: UUID) -> None:
    store = SessionContextStore(database.session)
    for call in [*(each for calls in STORE.values() for each in calls)]:
        try:
            told = await call(store, hidden)
        except AgentServiceError as exc:
            told = exc
        assert leaked(told) == []
        assert told != [hidden]
    assert set(CONTEXTS) == {"read", "change", "clear", "ids"}  # all of which the store calls
    await stays_as_it_was(database, hidden)


async def stays_as_it_was(database: DatabaseManager, hidden: UUID) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        assert await repo.restore(hidden) is True
        assert await repo.restore(hidden) is False
        session = await repo.get_session_with_messages(hidden)
    assert session is not None
    assert (session.title, session.context, session.version) == (TITLE, {SECRET: 1}, 1)
    assert [each.content for each in session.messages] == [SECRET] * 3
