"""Fields that only the package sets: nobody else can, by no way, so no session shows what is not its tenant's."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import make_transient
from sqlalchemy.orm.attributes import set_attribute

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession

MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
OWN: dict[str, Any] = {
    "parent_session_id": uuid7(),
    "fork_seq": 10,
    "last_seq": 10,
    "total_messages": 10,
    "total_tokens": 10,
    "version": 10,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "last_activity_at": MOMENT,
    "completed_at": MOMENT,
    "deleted_at": MOMENT,
    "watched_until": MOMENT,
}
CALLERS = {
    "id", "tenant_id", "external_id", "user_id", "agent_id", "title", "status", "context", "session_metadata",
    "expires_at",
}  # fmt: skip


async def row(db: AsyncSession, session_id: UUID) -> Any:
    statement = select(*Session.__table__.c).where(Session.id == session_id)
    return (await db.execute(statement)).one()


def test_every_field_is_the_callers_or_the_packages() -> None:
    assert {*OWN, *CALLERS} == {each.key for each in inspect(Session).column_attrs}


async def test_a_new_session_cannot_be_given_what_only_the_package_sets(repo: SessionRepository) -> None:
    for name, value in OWN.items():
        with pytest.raises(SessionValueError, match=name):
            await repo.create(Session(user_id="ada", **{name: value}))


async def test_what_is_put_past_the_checks_of_a_new_session_is_not_stored(
    repo: SessionRepository, db: AsyncSession
) -> None:
    for name, value in OWN.items():
        given = Session(user_id="ada")
        vars(given)[name] = value

        created = await repo.create(given)

        stored = await row(db, created.id)
        assert getattr(stored, name) == getattr(created, name) != value


ASSIGNMENTS: dict[str, Callable[[Session, str, Any], None]] = {
    "=": setattr,
    "set_attribute": set_attribute,
    "del": lambda session, name, _value: delattr(session, name),
}


@pytest.mark.parametrize("assign", ASSIGNMENTS)
async def test_a_stored_session_refuses_it_and_a_commit_writes_nothing(database: DatabaseManager, assign: str) -> None:
    async with database.session() as db:
        stored = await SessionRepository(db).create(Session(user_id="ada"))
        before = await row(db, stored.id)
    for name, value in {**OWN, "id": uuid7(), "tenant_id": "other"}.items():
        async with database.session() as db:
            session = await SessionRepository(db).get(stored.id)
            assert session is not None
            with pytest.raises(SessionValueError, match=name):
                ASSIGNMENTS[assign](session, name, value)
            await db.commit()
            assert await row(db, stored.id) == before


async def test_a_merged_session_cannot_take_counters_back(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        old = await repo.get(session.id)
        db.expunge(session)
        await repo.add_message_to_session(session.id, {"role": "user"})
        await db.commit()

        with pytest.raises(SessionValueError, match="last_seq"):
            await db.merge(old)
        db.expunge_all()
        with pytest.raises(SessionValueError, match="last_seq"):
            await db.merge(Session(id=session.id, tenant_id="", user_id="ada"))
        db.expunge_all()
        fresh = await repo.get(session.id)
        assert fresh is not None
        db.expunge(fresh)
        fresh.title = "merged"
        merged: Any = await db.merge(fresh)

        assert (merged.title, merged.last_seq) == ("merged", 1)


async def test_a_stored_session_is_not_created_again(database: DatabaseManager, repo: SessionRepository) -> None:
    session = await repo.create(Session(user_id="ada"))
    await repo.add_message_to_session(session.id, {"role": "user"})

    with pytest.raises(SessionConflictError, match=str(session.id)):
        await repo.create(session)
    repo._db.expunge(session)
    with pytest.raises(SessionConflictError, match=str(session.id)):
        await repo.create(session)

    stored = await repo.get(session.id)
    assert stored is not None
    assert stored.last_seq == 1


async def test_a_fork_made_transient_is_no_fork_any_more(repo: SessionRepository, db: AsyncSession) -> None:
    session = await repo.create(Session(user_id="ada"))
    await repo.add_message_to_session(session.id, {"role": "user"})
    fork = await repo.fork(session.id, 1)
    db.expunge(fork)
    make_transient(fork)
    fork.id = uuid7()

    created = await repo.create(fork)

    assert await repo.get_messages(created.id) == []
    assert (created.parent_session_id, created.total_messages) == (None, 0)


async def test_the_refusal_names_what_makes_a_fork() -> None:
    with pytest.raises(SessionValueError, match=r"(?s)parent_session_id .*fork\(\)"):
        Session(user_id="ada", parent_session_id=uuid7())
    with pytest.raises(SessionValueError, match=r"(?s)created_at .*import_user\(\)"):
        Session(user_id="ada", created_at=MOMENT)


async def test_what_is_given_as_it_is_is_no_change(repo: SessionRepository) -> None:
    session = await repo.create(Session(user_id="ada", tenant_id="", last_seq=0, version=1, parent_session_id=None))

    session.tenant_id, session.id, session.version = "", session.id, 1
    await repo.update(session)

    assert session.version == 2


@pytest.fixture
async def rigged(database: DatabaseManager) -> Callable[..., Any]:
    """Write what no method of ours does: parents that make a circle, or are of another tenant."""

    async def rig(session_id: UUID, parent: UUID, fork_seq: int) -> None:
        key = {"id": session_id.hex, "parent": parent.hex, "seq": fork_seq}
        if not database.embedded:
            key = {"id": session_id, "parent": parent, "seq": fork_seq}
        statement = "UPDATE agent_service_sessions SET parent_session_id = :parent, fork_seq = :seq WHERE id = :id"
        async with database.session() as db:
            await db.execute(text(statement), key)

    return rig


async def test_a_circle_of_parents_ends(database: DatabaseManager, rigged: Callable[..., Any]) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        first, second = [await repo.create(Session(user_id="ada", title="needle")) for _ in range(2)]
        for each in (first, second):
            await repo.add_message_to_session(each.id, {"role": "user", "content": "needle"})
    await rigged(first.id, first.id, 1)
    for _ in range(2):
        async with database.session() as db:
            repo = SessionRepository(db)
            for each in (first, second):
                assert len(await repo.get_messages(each.id)) >= 1
                assert await repo.get_session_with_messages(each.id) is not None
            assert len(await repo.search_sessions("ada", "needle")) == 2
            assert len(await repo.search_messages("ada", "needle", 10)) >= 2
            assert len([line async for line in repo.export_user("ada")]) >= 4
            await repo.recount()
        await rigged(first.id, second.id, 1)
        await rigged(second.id, first.id, 1)
    async with database.session() as db:
        assert await SessionRepository(db).erase_user("ada") == 2


async def test_no_row_points_across_tenants(
    database: DatabaseManager, repo: SessionRepository, new_session: NewSession, rigged: Callable[..., Any]
) -> None:
    theirs = await new_session()
    await repo._db.commit()
    async with database.session() as db:
        mine = await SessionRepository(db, "evil").create(Session(user_id="eve"))

    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await rigged(mine.id, theirs.id, 1)


async def test_an_id_of_another_tenant_is_free_and_says_nothing(database: DatabaseManager) -> None:
    async with database.session() as db:
        ours, theirs = SessionRepository(db), SessionRepository(db, "other")
        session = await ours.create(Session(user_id="ada", title="ours"))
        await ours.add_message_to_session(session.id, {"role": "user", "content": "ours"}, client_id="c")

        same = await theirs.create(Session(id=session.id, user_id="ada", title="theirs"))
        added = await theirs.add_message_to_session(same.id, {"role": "user", "content": "theirs"}, client_id="c")
        (many,) = await theirs.add_messages_to_session(same.id, [{"role": "user"}], client_ids=["d"])
        fork = await theirs.fork(same.id, 2)

        assert [each.content for each in await ours.get_messages(session.id)] == ["ours"]
        assert [each.content for each in await theirs.get_messages(fork.id)] == ["theirs", None]
        assert (added.seq, many.seq, session.title, same.title) == (1, 2, "ours", "theirs")
        assert await theirs.delete(same.id, hard=True)
        assert [each.content for each in await theirs.get_messages(fork.id)] == ["theirs", None]
        assert [each.content for each in await ours.get_messages(session.id)] == ["ours"]
        with pytest.raises(SessionNotFoundError):
            await theirs.get_messages(session.id)


async def test_a_session_of_another_tenant_does_not_update_the_one_of_the_same_id(database: DatabaseManager) -> None:
    async with database.session() as db:
        ours, theirs = SessionRepository(db), SessionRepository(db, "other")
        session = await ours.create(Session(user_id="ada", title="ours"))
        await theirs.create(Session(id=session.id, user_id="eve", title="theirs"))
        session.title = "secret"

        never_stored = [Session(id=session.id, user_id="mallory") for _ in range(2)]
        never_stored[1].tenant_id = "other"
        for given in (session, *never_stored):
            with pytest.raises(SessionNotFoundError):
                await theirs.update(given)

        kept = await theirs.get(session.id)
        assert kept is not None
        assert (kept.user_id, kept.title, kept.version) == ("eve", "theirs", 1)
