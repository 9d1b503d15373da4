"""Reads past the ORM return what the ORM returns: the same objects, as fresh, with the same values. On both engines."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, inspect, select, text, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria

from agent_service.core.errors import SessionValueError
from agent_service.core.fixed import FixedDict, FixedList
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session, SessionStatus, set_own_fields
from agent_service.infrastructure.database.queries.history import window
from agent_service.infrastructure.database.queries.listing import listed as listed_read
from agent_service.infrastructure.database.queries.reads import Read
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.values.documents import dumps, loads, read_json
from tests.database.conftest import NewSession

DOCUMENT = {
    "text": "Zażółć 😀 \x00", "none": None, "big": 2**70, "huge": 1e23, "tiny": 5e-324, "exact": 0.1 + 0.2,
    "deep": [{"list": [1, 2.0, True, {}, []]}],
}  # fmt: skip


async def listed(repo: SessionRepository) -> list[Session]:
    return await repo.get_user_sessions("ada", active_only=False)


def values_of(found: Any) -> dict[str, tuple[type, Any]]:
    columns = inspect(type(found)).column_attrs
    return {each.key: (type(getattr(found, each.key)), getattr(found, each.key)) for each in columns}


async def test_every_column_is_what_the_orm_makes_of_it(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    parent = await new_session(user_id="ada")
    await repo.add_message_to_session(parent.id, {"role": "user", "content": "hi", **DOCUMENT}, client_id="c")
    await repo.add_message_to_session(parent.id, {"role": "tool", "content": None, "token_count": 7})
    await repo.fork(parent.id, 1)
    without_nul = {**DOCUMENT, "text": "Zażółć 😀"}
    await new_session(
        user_id="ada", external_id="e", title="t", status="failed", context=without_nul, metadata=DOCUMENT,
        expires_at=datetime(2030, 1, 1, 1, 2, 3, 4, tzinfo=UTC),
    )  # fmt: skip
    user = uuid4()
    await new_session(user_id=user, status=SessionStatus.COMPLETED)

    for kind, found in (
        (Session, await repo.get_user_sessions("ada", active_only=False)),
        (Session, await repo.get_user_sessions(user, active_only=False)),
        (SessionMessage, await repo.get_messages(parent.id)),
    ):
        db.expunge_all()
        by_orm = {inspect(each).identity: values_of(each) for each in await db.scalars(select(kind))}
        assert found
        each: Any
        for each in found:
            assert values_of(each) == by_orm[inspect(each).identity]


async def test_what_is_found_are_the_sessions_own_objects(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", context={"a": {"b": [1]}})
    message = await repo.add_message_to_session(session.id, {"role": "user", "content": "hi"})
    db.expunge_all()

    (first,), (again,) = await listed(repo), await listed(repo)
    (said,) = await repo.get_messages(session.id)

    assert first is again is await repo.get(session.id)
    assert first is await db.get(Session, ("", session.id))
    assert said is await db.get(SessionMessage, ("", session.id, message.seq))
    each: Any
    for each in (first, said):
        assert inspect(each).persistent
        assert inspect(each).session is db.sync_session
        assert not inspect(each).modified
    assert isinstance(first.context, FixedDict)
    assert isinstance(first.context["a"]["b"], FixedList)
    with pytest.raises(SessionValueError):
        first.context["a"] = 1


async def test_what_was_loaded_before_is_refreshed(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", title="before")
    await repo.get_session_with_messages(session.id)
    stored = update(Session).where(Session.id == session.id).values(title="after")
    await db.execute(stored, execution_options={"synchronize_session": False})

    assert (session.title, session.messages) == ("before", [])
    await listed(repo)

    assert session.title == "after"
    with pytest.raises(InvalidRequestError):  # As after each read but get_session_with_messages().
        _ = session.messages


async def test_an_expired_object_is_whole_again(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", title="t")
    db.expire(session)

    await listed(repo)

    assert not inspect(session).expired_attributes - {"messages"}
    assert session.title == "t"


async def test_pending_changes_are_flushed_first(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", title="before")
    other = await new_session(user_id="ada", title="before")

    session.title = "after"
    (found,) = [each for each in await listed(repo) if each.id == session.id]
    with db.no_autoflush:
        other.title = "lost"
        await listed(repo)

    assert found.title == "after"
    assert (other.title, inspect(other).modified) == ("before", False)
    assert (await db.execute(text("SELECT count(*) FROM agent_service_sessions WHERE title = 'after'"))).scalar() == 1


async def test_a_read_object_is_written_back_by_the_orm(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", title="before")
    db.expunge_all()
    (found,) = await listed(repo)

    found.title = "after"
    await db.flush()
    db.expunge_all()

    assert [each.title for each in await listed(repo)] == ["after"]
    assert found.id == session.id


async def test_who_listens_to_the_orm_hears_of_each_read(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    await new_session(user_id="ada")
    db.expunge_all()
    statements: list[Any] = []
    event.listen(db.sync_session, "do_orm_execute", statements.append)

    found = await listed(repo)
    total = await repo.count_active_sessions("ada")

    assert (len(found), total, len(statements)) == (1, 1, 2)


async def test_every_list_has_its_conditions(repo: SessionRepository, new_session: NewSession) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    old = await new_session(user_id="ada", title="x", agent_id="a", status="failed")
    new = await new_session(user_id="ada", title="y", agent_id="b", expires_at=soon)
    await new_session(user_id="bob", title="x", agent_id="c")

    page = await repo.get_paginated_user_sessions("ada", status="failed", agent_id="a")
    first = await repo.get_user_sessions_page("ada", limit=1)
    second = await repo.get_user_sessions_page("ada", limit=1, cursor=first.next_cursor)

    assert (list(page.items), page.total) == ([old], 1)
    assert (first.items, second.items, second.next_cursor) == ([new], [old], None)
    assert await repo.get_user_sessions("ada") == [new]
    assert await repo.get_sessions_by_agent("b", active_only=True) == [new]
    assert await repo.get_sessions_by_agent("a", active_only=True) == []
    assert await repo.get_session_by_title("ada", "x") is old
    assert await repo.get_recent_sessions("ada", hours=1) == [new, old]
    assert await repo.count_active_sessions() == 2


async def test_a_page_has_its_total_whoever_deleted_how_much(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    mine = [await new_session(user_id="ada") for _ in range(3)]
    bobs = [await new_session(user_id="bob") for _ in range(2)]
    other = SessionRepository(db, "acme")
    theirs = await other.create(Session(user_id="ada"))
    for owner, each in ((repo, mine[0]), (repo, bobs[0]), (other, theirs)):
        await owner.delete(each.id)
    few = [(await each.get_paginated_user_sessions("ada")).total for each in (repo, other)]
    for _ in range(6):
        db.add_all([hidden(mine[0]) for _ in range(100)])
        await db.flush()

    many = [(await each.get_paginated_user_sessions("ada")).total for each in (repo, other)]

    assert few == many == [2, 0]


def hidden(like: Session) -> Session:
    session = Session(user_id="ada", tenant_id="", expires_at=like.expires_at)
    moments = ("created_at", "updated_at", "last_activity_at", "deleted_at")
    set_own_fields(session, **{name: getattr(like, name) for name in moments})
    return session


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_stored_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    written = dumps(value)

    assert repr(read_json(written)) == repr(loads(written))


@pytest.mark.parametrize(
    "written", ["NaN", '"\\ud800"', '{"a": 1e400}', '{"a": -0.0, "b": -0}', str(2**64), "[" * 500 + "]" * 500]
)
def test_what_others_wrote_is_read_as_well(written: str) -> None:
    read, expected = read_json(written), json.loads(written)

    assert repr(read) == repr(expected)


@pytest.mark.parametrize("style", ["named", "format"])
async def test_an_engine_may_have_another_parameter_style(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession, style: str
) -> None:
    made = await new_session(user_id="ada", title="needle")
    await repo.add_message_to_session(made.id, {"role": "user", "content": "hi"})
    kind: Any = type(db.get_bind().dialect)

    of_all_engines: tuple[Read[Any], ...] = listed_read(("user_id",)), window(())
    for each in of_all_engines:
        each._prepared._compile(kind(paramstyle=style))

    assert await listed(repo) == [made]
    assert len(await repo.get_messages(made.id)) == 1


async def test_criteria_of_the_callers_session_apply_to_a_search(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    shown = await new_session(user_id="ada", title="needle")
    await new_session(user_id="ada", title="needle, hidden")

    def hide(state: ORMExecuteState) -> None:
        state.statement = state.statement.options(with_loader_criteria(Session, Session.title == "needle"))

    event.listen(db.sync_session, "do_orm_execute", hide)

    assert await repo.search_sessions("ada", "needle") == [shown]
    assert await repo.search_sessions("ada", "needle", in_content=False) == [shown]


@pytest.mark.parametrize("written", ["2020-01-01", "2020-01-01 00:00:00", "2020-01-01 02:00:00.000000+02:00"])
async def test_a_moment_that_others_wrote_into_sqlite_is_in_utc(sqlite_url: str, written: str) -> None:
    database = DatabaseManager(sqlite_url)
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.create(Session(user_id="ada"))
        await db.execute(text("UPDATE agent_service_sessions SET created_at = :written"), {"written": written})
        (found,) = await listed(repo)
        assert (found.created_at, found.created_at.tzinfo) == (datetime(2020, 1, 1, tzinfo=UTC), UTC)
    await database.close()
