"""Every public method, called as another tenant, sees and changes nothing. On both engines."""

import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession

Call = Callable[[SessionRepository, Session], Awaitable[Any]]

SEES_NOTHING: dict[str, tuple[Call, object]] = {
    "get": (lambda repo, canary: repo.get(canary.id), None),
    "get_by_external_id": (lambda repo, canary: repo.get_by_external_id("canary"), None),
    "get_session_with_messages": (lambda repo, canary: repo.get_session_with_messages(canary.id), None),
    "get_session_by_title": (lambda repo, canary: repo.get_session_by_title("ada", "canary"), None),
    "get_user_sessions": (lambda repo, canary: repo.get_user_sessions("ada", active_only=False), []),
    "get_recent_sessions": (lambda repo, canary: repo.get_recent_sessions("ada"), []),
    "get_sessions_by_agent": (lambda repo, canary: repo.get_sessions_by_agent("bird"), []),
    "search_sessions": (lambda repo, canary: repo.search_sessions("ada", "canary"), []),
    "count_active_sessions": (lambda repo, canary: repo.count_active_sessions(), 0),
    "cleanup_expired_sessions": (lambda repo, canary: repo.cleanup_expired_sessions(), 0),
    "bulk_update_session_status": (lambda repo, canary: repo.bulk_update_session_status([canary.id], "failed"), 0),
    "delete": (lambda repo, canary: repo.delete(canary.id), False),
    "search_messages": (lambda repo, canary: repo.search_messages("ada", "canary"), []),
    "restore": (lambda repo, canary: repo.restore(canary.id), False),
    "purge_deleted": (lambda repo, canary: repo.purge_deleted(timedelta()), 0),
    "erase_user": (lambda repo, canary: repo.erase_user("ada"), 0),
    "recount": (lambda repo, canary: repo.recount(), []),
    "export_user": (lambda repo, canary: anext(repo.export_user("ada"), None), None),
    "iter_sessions": (lambda repo, canary: anext(repo.iter_sessions(user_id="ada"), None), None),
}
FINDS_NOTHING: dict[str, Call] = {
    "add_message_to_session": lambda repo, canary: repo.add_message_to_session(
        canary.id, {"role": "user"}, client_id="c"
    ),
    "add_messages_to_session": lambda repo, canary: repo.add_messages_to_session(canary.id, [{"role": "user"}]),
    "get_messages": lambda repo, canary: repo.get_messages(canary.id),
    "iter_messages": lambda repo, canary: anext(repo.iter_messages(canary.id)),
    "pop_message": lambda repo, canary: repo.pop_message(canary.id),
    "clear_messages": lambda repo, canary: repo.clear_messages(canary.id),
    "replace_suffix": lambda repo, canary: repo.replace_suffix(canary.id, 1, [{"role": "user"}]),
    "update_session_context": lambda repo, canary: repo.update_session_context(canary.id, {"a": 1}),
    "update_session_metadata": lambda repo, canary: repo.update_session_metadata(canary.id, {"a": 1}),
    "set_session_context": lambda repo, canary: repo.set_session_context(canary.id, {"a": 1}),
    "set_session_metadata": lambda repo, canary: repo.set_session_metadata(canary.id, {"a": 1}),
    "set_session_context_path": lambda repo, canary: repo.set_session_context_path(canary.id, "a.b", 1),
    "set_session_metadata_path": lambda repo, canary: repo.set_session_metadata_path(canary.id, "a.b", 1),
    "increment_session_context": lambda repo, canary: repo.increment_session_context(canary.id, "n"),
    "fork": lambda repo, canary: repo.fork(canary.id, 1),
    "update": lambda repo, canary: repo.update(canary),
    "subscribe": lambda repo, canary: anext(repo.subscribe(canary.id)),
}
TESTED_APART = {
    "create", "get_or_create", "get_session_stats", "get_paginated_user_sessions", "get_user_sessions_page",
    "import_user",
}  # fmt: skip


@pytest.fixture
async def canary(repo: SessionRepository, new_session: NewSession) -> Session:
    session = await new_session(user_id="ada", agent_id="bird", title="canary", external_id="canary")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "canary"}, client_id="c")
    return session


async def contents(db: AsyncSession) -> list[Any]:
    sessions = (await db.execute(text("SELECT * FROM agent_service_sessions ORDER BY id"))).all()
    messages = (await db.execute(text("SELECT * FROM agent_service_session_messages ORDER BY session_id, seq"))).all()
    return [*sessions, *messages]


@pytest.mark.parametrize("other_tenant", ["other", " ", "%"])
@pytest.mark.parametrize("method", SEES_NOTHING)
async def test_another_tenant_sees_nothing(db: AsyncSession, canary: Session, method: str, other_tenant: str) -> None:
    call, nothing = SEES_NOTHING[method]
    before = await contents(db)

    assert await call(SessionRepository(db, other_tenant), canary) == nothing

    assert await contents(db) == before


@pytest.mark.parametrize("method", FINDS_NOTHING)
async def test_another_tenant_finds_no_session(db: AsyncSession, canary: Session, method: str) -> None:
    before = await contents(db)

    with pytest.raises(SessionNotFoundError, match="'other'"):
        await FINDS_NOTHING[method](SessionRepository(db, "other"), canary)

    assert await contents(db) == before


async def test_pages_and_statistics_are_the_tenants_own(db: AsyncSession, canary: Session) -> None:
    other = SessionRepository(db, "other")
    own = await other.create(Session(user_id="ada", external_id="canary"))

    assert (await other.get_paginated_user_sessions("ada")).items == [own]
    assert (await other.get_user_sessions_page("ada")).items == [own]
    assert (await other.get_session_stats("ada")).total_messages == 0
    assert (await other.get_session_stats()).total_sessions == 1
    assert await other.delete(canary.id, hard=True) is False


async def test_an_external_id_gets_a_session_of_the_tenants_own(db: AsyncSession, canary: Session) -> None:
    own = await SessionRepository(db, "other").get_or_create("canary", user_id="ada")

    assert (own.tenant_id, own.total_messages) == ("other", 0)
    assert own.id != canary.id


async def test_a_hidden_session_stays_hidden_to_another_tenant(
    db: AsyncSession, repo: SessionRepository, canary: Session
) -> None:
    other = SessionRepository(db, "other")
    await repo.delete(canary.id)
    before = await contents(db)

    assert await other.restore(canary.id) is False
    assert await other.purge_deleted(datetime.now(UTC) + timedelta(days=1)) == 0
    assert await other.erase_user("ada") == 0
    with pytest.raises(SessionNotFoundError, match="'other'"):
        await other.recount(canary.id)

    assert await contents(db) == before


def test_every_public_method_is_driven_here() -> None:
    methods = {name for name, _ in inspect.getmembers(SessionRepository, inspect.isfunction) if name[0] != "_"}

    assert methods == {*SEES_NOTHING, *FINDS_NOTHING, *TESTED_APART}


@pytest.mark.parametrize("tenant", [None, 7, "x" * 256, "a\x00", "\ud800"])
async def test_a_tenant_that_cannot_be_is_refused(tenant: Any) -> None:
    with pytest.raises(SessionValueError, match="tenant_id"):
        SessionRepository(None, tenant)  # type: ignore[arg-type]


async def test_what_another_tenant_says_in_a_session_of_the_same_id_is_neither_found_nor_counted(
    db: AsyncSession,
) -> None:
    id_ = uuid4()
    here, there = SessionRepository(db), SessionRepository(db, "other")
    for repo, said in ((here, ["parrot"]), (there, ["parrot", "parrot", "canary"])):
        await repo.create(Session(id=id_, user_id="ada"))
        for content in said:
            await repo.add_message_to_session(id_, {"role": "user", "content": content, "token_count": 1})
    fork = await here.fork(id_, 1)

    found = [(each.session.id, each.seq) for each in await here.search_messages("ada", "parrot")]
    assert sorted(found) == sorted([(id_, 1), (fork.id, 1)])
    assert await here.search_messages("ada", "canary") == []
    assert await here.recount() == []
    assert [each.seq for each in await there.get_messages(id_)] == [1, 2, 3]


async def test_a_fork_outlives_its_parent_beside_another_tenants_session_of_the_same_id(db: AsyncSession) -> None:
    id_ = uuid4()
    here, there = SessionRepository(db), SessionRepository(db, "other")
    for repo in (here, there):
        await repo.create(Session(id=id_, user_id="ada"))
        await repo.add_messages_to_session(id_, [{"role": "user"}, {"role": "user"}])
    fork = await here.fork(id_, 1)
    await here.delete(id_)

    assert await here.purge_deleted(timedelta()) == 1
    assert [each.seq for each in await here.get_messages(fork.id)] == [1]
    assert [each.seq for each in await there.get_messages(id_)] == [1, 2]
