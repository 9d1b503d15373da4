"""``expected_seq`` guards an append against other appends, ``expected_version`` against changes of the session."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository

MESSAGE = {"role": "user", "content": "Hi"}


async def rename(repo: SessionRepository, session: Session) -> None:
    session.title = "other"
    await repo.update(session)


OWN_CHANGES: dict[str, Callable[[SessionRepository, Session], Any]] = {
    "title": rename,
    "context": lambda repo, session: repo.update_session_context(session.id, {"a": 1}),
    "context, deep": lambda repo, session: repo.update_session_context(session.id, {"a": {}}, deep=True),
    "context path": lambda repo, session: repo.set_session_context_path(session.id, "a", 1),
    "context, whole": lambda repo, session: repo.set_session_context(session.id, {}),
    "counter": lambda repo, session: repo.increment_session_context(session.id, "n"),
    "metadata": lambda repo, session: repo.update_session_metadata(session.id, {"a": 1}),
    "status": lambda repo, session: repo.bulk_update_session_status([session.id], SessionStatus.FAILED),
}

MESSAGE_CHANGES: dict[str, Callable[[SessionRepository, Session], Any]] = {
    "append": lambda repo, session: repo.add_message_to_session(session.id, MESSAGE),
    "batch": lambda repo, session: repo.add_messages_to_session(session.id, [MESSAGE, MESSAGE]),
    "pop": lambda repo, session: repo.pop_message(session.id),
    "fork": lambda repo, session: repo.fork(session.id, 1),
    "recount": lambda repo, session: repo.recount(session.id),
}


@pytest.fixture
async def session(database: DatabaseManager) -> Session:
    """A session with one message, as its reader last saw it."""
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await repo.add_message_to_session(session.id, MESSAGE)
    assert (session.version, session.last_seq) == (1, 1)
    return session


async def change(database: DatabaseManager, session: Session, how: Callable[[SessionRepository, Session], Any]) -> None:
    """Change the session as somebody else does."""
    async with database.session() as db:
        repo = SessionRepository(db)
        theirs = await repo.get(session.id)
        assert theirs is not None
        await how(repo, theirs)


@pytest.mark.parametrize("how", OWN_CHANGES)
async def test_a_change_of_the_sessions_own_fields_counts_the_version_and_not_the_messages(
    database: DatabaseManager, session: Session, how: str
) -> None:
    await change(database, session, OWN_CHANGES[how])

    async with database.session() as db:
        repo = SessionRepository(db)
        with pytest.raises(SessionConflictError, match="version 2"):
            await repo.add_message_to_session(session.id, MESSAGE, expected_version=1)
        with pytest.raises(SessionConflictError, match="version 2"):
            await repo.update_session_context(session.id, {}, expected_version=1)
        added = await repo.add_message_to_session(session.id, MESSAGE, expected_seq=1, expected_version=2)

    assert added.seq == 2


@pytest.mark.parametrize("how", MESSAGE_CHANGES)
async def test_messages_do_not_count_the_version(database: DatabaseManager, session: Session, how: str) -> None:
    await change(database, session, MESSAGE_CHANGES[how])

    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(session.id, MESSAGE, expected_version=1)
        await repo.update_session_metadata(session.id, {}, expected_version=1)


@pytest.mark.parametrize("how", ["append", "batch"])
async def test_an_append_between_is_what_expected_seq_refuses(
    database: DatabaseManager, session: Session, how: str
) -> None:
    await change(database, session, MESSAGE_CHANGES[how])

    async with database.session() as db:
        with pytest.raises(SessionConflictError, match=r"expected last_seq 1;"):
            await SessionRepository(db).add_message_to_session(session.id, MESSAGE, expected_seq=1)


async def test_an_append_of_a_writer_between_is_refused_too(database: DatabaseManager, session: Session) -> None:
    async with SessionWriter(database) as writer:
        await writer.append(session.id, MESSAGE)

    async with database.session() as db:
        repo = SessionRepository(db)
        with pytest.raises(SessionConflictError, match="is at last_seq 2, version 1"):
            await repo.add_message_to_session(session.id, MESSAGE, expected_seq=1)
        await repo.add_message_to_session(session.id, MESSAGE, expected_version=1)
