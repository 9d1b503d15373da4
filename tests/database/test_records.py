"""Sessions one at a time: create, read, change, delete; the same on both engines."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession


async def test_a_created_session_is_there_for_another_connection(database: DatabaseManager) -> None:
    user = uuid4()
    async with database.session() as db:
        session = await SessionRepository(db).create(
            Session(user_id=user, agent_id="code_agent", title="Debug", metadata={"b": 1, "a": [None]})
        )

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)

    assert found is not None
    assert found is not session
    assert (found.user_id, found.agent_id, found.title, found.status) == (user, "code_agent", "Debug", "active")
    assert list(found.session_metadata) == ["b", "a"]
    assert (found.context, found.total_messages, found.last_seq, found.version) == ({}, 0, 0, 1)
    assert found.created_at == found.last_activity_at
    assert found.created_at.utcoffset() == timedelta(0)


async def test_the_callers_id_is_kept(repo: SessionRepository, new_session: NewSession) -> None:
    chosen = uuid4()

    created = await new_session(id=str(chosen))

    assert created.id == chosen
    assert await repo.get(str(chosen)) is created


async def test_ids_made_by_us_sort_by_creation(new_session: NewSession) -> None:
    first, second = await new_session(), await new_session()

    assert first.id.version == 7
    assert first.id < second.id


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (UUID(int=5), UUID(int=5)),
        (str(UUID(int=5)), UUID(int=5)),
        ("auth0|5f7c", "auth0|5f7c"),
        ("ABCDEF00-0000-0000-0000-000000000005", "ABCDEF00-0000-0000-0000-000000000005"),
        ("żółw", "żółw"),
    ],
)
async def test_a_user_id_is_a_uuid_or_any_string(database: DatabaseManager, given: object, kept: object) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id=given))
        assert session.user_id == kept

    async with database.session() as db:
        found = await SessionRepository(db).get_user_sessions(given)  # type: ignore[arg-type]

    assert [each.user_id for each in found] == [kept]


async def test_expiry_is_a_day_from_creation_unless_given(new_session: NewSession) -> None:
    far = datetime(2040, 1, 1, tzinfo=UTC)

    usual, chosen = await new_session(), await new_session(expires_at=far)

    assert usual.expires_at - usual.created_at == timedelta(hours=24)
    assert chosen.expires_at == far


async def test_a_taken_id_is_a_conflict_and_the_transaction_goes_on(
    repo: SessionRepository, new_session: NewSession
) -> None:
    first = await new_session(external_id="thread_1")

    with pytest.raises(SessionConflictError, match=str(first.id)):
        await repo.create(Session(id=first.id, user_id="someone"))
    with pytest.raises(SessionConflictError, match="thread_1"):
        await new_session(external_id="thread_1")

    assert await repo.get_by_external_id("thread_1") is first
    await new_session(external_id="thread_2")


async def test_messages_are_loaded_only_when_asked_for(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    await repo.add_message_to_session(session.id, {"role": "user", "content": "Hello"})

    plain = await repo.get(session.id)
    assert plain is not None
    with pytest.raises(InvalidRequestError):
        _ = plain.messages
    loaded = await repo.get_session_with_messages(session.id)

    assert loaded is not None
    assert len(loaded.messages) == 1
    assert loaded.messages[0]["role"] == "user"


async def test_loading_again_shows_what_was_added_since(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    for count in (1, 2, 3):
        await repo.add_message_to_session(session.id, {"role": "user", "content": str(count)})
        loaded = await repo.get_session_with_messages(session.id)
        assert loaded is not None
        assert [each.content for each in loaded.messages] == [str(n + 1) for n in range(count)]


async def test_update_writes_what_was_assigned_and_nothing_else(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada", title="Old"))
    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(session.id, {"role": "user", "content": "Hi"})
        await SessionRepository(db).update_session_context(session.id, {"kept": True})

    session.title, session.status = "New", SessionStatus.FAILED
    async with database.session() as db:
        updated = await SessionRepository(db).update(session)

    assert updated.version == 3
    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert (found.title, found.status, found.total_messages, found.context) == ("New", "failed", 1, {"kept": True})
    assert found.completed_at == updated.completed_at is not None


async def test_completed_at_follows_the_status(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    session.status = "completed"  # type: ignore[assignment]
    await repo.update(session)
    ended = session.completed_at
    session.status = SessionStatus.CANCELLED
    await repo.update(session)
    still_ended = session.completed_at
    session.status = SessionStatus.ACTIVE
    await repo.update(session)

    assert ended is not None
    assert still_ended == ended
    assert session.completed_at is None
    assert (await new_session(status="failed")).completed_at is not None


async def test_updating_an_unknown_session_says_so(repo: SessionRepository) -> None:
    with pytest.raises(SessionNotFoundError, match="never was"):
        await repo.update(Session(user_id="nobody"))


async def test_updating_to_a_taken_external_id_changes_nothing(
    repo: SessionRepository, new_session: NewSession
) -> None:
    await new_session(external_id="taken")
    session = await new_session(external_id="own")

    session.external_id = "taken"
    with pytest.raises(SessionConflictError, match="taken"):
        await repo.update(session)

    session.external_id = "own"
    await repo.update(session)
    assert await repo.get_by_external_id("own") is session


async def test_a_soft_deleted_session_is_gone_for_every_method(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(external_id="x", title="Gone")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "Gone"})

    assert await repo.delete(session.id) is True
    assert await repo.delete(session.id) is False

    assert await repo.get(session.id) is None
    assert await repo.get_by_external_id("x") is None
    assert await repo.get_session_with_messages(session.id) is None
    assert await repo.get_user_sessions(session.user_id, active_only=False) == []
    assert await repo.search_sessions(session.user_id, "gone") == []
    assert (await repo.get_session_stats(session.user_id)).total_sessions == 0
    assert await repo.bulk_update_session_status([session.id], "failed") == 0
    with pytest.raises(SessionNotFoundError):
        await repo.add_message_to_session(session.id, {"role": "user"})
    with pytest.raises(SessionNotFoundError):
        await repo.update_session_context(session.id, {})
    with pytest.raises(SessionNotFoundError):
        await repo.get_messages(session.id)
    with pytest.raises(SessionNotFoundError):
        await repo.pop_message(session.id)


async def test_a_hard_delete_takes_the_messages_with_it(
    repo: SessionRepository, new_session: NewSession, db: AsyncSession
) -> None:
    session = await new_session(title="Remove me")
    for _ in range(3):
        await repo.add_message_to_session(session.id, {"role": "user", "content": "Remove me too"})
    await repo.delete(session.id)

    assert await repo.delete(session.id, hard=True) is True
    assert await repo.delete(session.id, hard=True) is False

    left = await db.connection(execution_options={})
    assert (await left.exec_driver_sql("SELECT count(*) FROM agent_service_session_messages")).scalar() == 0
    if left.dialect.name == "sqlite":
        assert (await left.exec_driver_sql("SELECT count(*) FROM agent_service_session_search_entries")).scalar() == 0


async def test_a_session_of_another_tenant_is_refused(repo: SessionRepository) -> None:
    with pytest.raises(SessionValueError, match="tenant_id"):
        await repo.create(Session(user_id="ada", tenant_id="other"))
