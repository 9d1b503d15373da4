"""Lists are ordered totally, bounded and validated; statistics come from counters. On both engines."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository, listing
from tests.database.conftest import NewSession

PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def twelve(db: AsyncSession, new_session: NewSession) -> tuple[UUID, list[Session]]:
    """A user's twelve sessions, latest activity first; each three share one moment."""
    user = uuid4()
    sessions = [await new_session(user_id=user, title=f"Session {number}") for number in range(12)]
    for number, session in enumerate(sessions):
        moment = PAST + timedelta(seconds=number // 3)
        await db.execute(update(Session).where(Session.id == session.id).values(last_activity_at=moment))
    await new_session(title="Someone else's")
    return user, sorted(sessions, key=lambda each: (each.last_activity_at, each.id), reverse=True)


async def test_latest_activity_comes_first_and_ids_decide_ties(
    repo: SessionRepository, twelve: tuple[UUID, list[Session]]
) -> None:
    user, sessions = twelve

    assert await repo.get_user_sessions(user) == sessions
    assert await repo.get_user_sessions(user, limit=5, offset=4) == sessions[4:9]
    assert await repo.get_user_sessions(str(user), active_only=True, limit=1) == sessions[:1]


async def test_activity_moves_a_session_to_the_front(
    repo: SessionRepository, twelve: tuple[UUID, list[Session]]
) -> None:
    user, sessions = twelve

    await repo.add_message_to_session(sessions[7].id, {"role": "user"})

    assert (await repo.get_user_sessions(user))[0] is sessions[7]


async def test_active_means_active_and_not_expired(repo: SessionRepository, new_session: NewSession) -> None:
    user = uuid4()
    active = await new_session(user_id=user)
    expired = await new_session(user_id=user, expires_at=PAST)
    ended = await new_session(user_id=user, status=SessionStatus.COMPLETED)

    assert await repo.get_user_sessions(user) == [active]
    assert set(await repo.get_user_sessions(user, active_only=False)) == {active, expired, ended}
    assert await repo.count_active_sessions(user) == await repo.count_active_sessions() == 1
    stats = await repo.get_session_stats(user)
    assert (stats.total_sessions, stats.active_sessions) == (3, 1)
    by_status = await repo.get_paginated_user_sessions(user, status="active")
    assert set(by_status.items) == {active, expired}


async def test_pages_cover_everything_once(repo: SessionRepository, twelve: tuple[UUID, list[Session]]) -> None:
    user, sessions = twelve

    pages = [await repo.get_paginated_user_sessions(user_id=user, page=page, page_size=5) for page in (1, 2, 3, 4)]

    assert [each for page in pages for each in page.items] == sessions
    assert [(page.page, page.total_pages, page.total) for page in pages] == [(n, 3, 12) for n in (1, 2, 3, 4)]
    assert [(page.has_prev, page.has_next) for page in pages] == [
        (False, True), (True, True), (True, False), (True, False),
    ]  # fmt: skip


async def test_no_sessions_make_no_pages(repo: SessionRepository) -> None:
    page = await repo.get_paginated_user_sessions("nobody")

    assert (list(page.items), page.total, page.total_pages, page.has_next, page.has_prev) == ([], 0, 0, False, False)


async def test_pages_can_be_filtered(repo: SessionRepository, new_session: NewSession) -> None:
    first = await new_session(user_id="ada", agent_id="a", status="failed")
    await new_session(user_id="ada", agent_id="b", status="failed")
    await new_session(user_id="ada", agent_id="a")

    page = await repo.get_paginated_user_sessions("ada", status=SessionStatus.FAILED, agent_id="a")

    assert (page.items, page.total) == ([first], 1)


async def test_a_cursor_walks_everything_once(repo: SessionRepository, twelve: tuple[UUID, list[Session]]) -> None:
    user, sessions = twelve
    walked: list[Session] = []
    cursor: str | None = None

    while True:
        page = await repo.get_user_sessions_page(user, limit=4, cursor=cursor)
        walked += page.items
        cursor = page.next_cursor
        if cursor is None:
            break

    assert walked == sessions
    assert len(page.items) == 4


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "!!!!", "é", 7, "A" * 33, "f" + "_" * 31])
async def test_a_foreign_cursor_is_refused(repo: SessionRepository, cursor: Any) -> None:
    with pytest.raises(SessionValueError, match="cursor"):
        await repo.get_user_sessions_page("ada", cursor=cursor)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda repo: repo.get_paginated_user_sessions("ada", page=0), "page"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page=-1), "page"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page=10**30), "page"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page=1.5), "page"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page=True), "page"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page_size=0), "page_size"),
        (lambda repo: repo.get_paginated_user_sessions("ada", page_size=1001), "page_size"),
        (lambda repo: repo.get_paginated_user_sessions("ada", status="sleeping"), "status"),
        (lambda repo: repo.get_user_sessions("ada", limit=0), "limit"),
        (lambda repo: repo.get_user_sessions("ada", offset=-1), "offset"),
        (lambda repo: repo.get_user_sessions(7), "user_id"),
        (lambda repo: repo.get_user_sessions(""), "user_id"),
        (lambda repo: repo.get_user_sessions("x" * 256), "user_id"),
        (lambda repo: repo.get_user_sessions("a\x00"), "user_id"),
        (lambda repo: repo.get_user_sessions_page("ada", limit="5"), "limit"),
        (lambda repo: repo.get_recent_sessions("ada", hours=float("nan")), "hours"),
        (lambda repo: repo.get_recent_sessions("ada", hours=0), "hours"),
        (lambda repo: repo.get_session_stats(b"ada"), "user_id"),
        (lambda repo: repo.get_sessions_by_agent("\ud800"), "agent_id"),
        (lambda repo: repo.get_session_by_title("ada", None), "title"),
        (lambda repo: repo.search_sessions("ada", None), "search_term"),
        (lambda repo: repo.search_sessions("ada", "\ud800"), "search_term"),
        (lambda repo: repo.search_sessions("ada", "x", limit=0), "limit"),
        (lambda repo: repo.get_messages(uuid4(), limit=0), "limit"),
        (lambda repo: repo.get_messages(uuid4(), before_seq=-1), "before_seq"),
        (lambda repo: repo.get_messages(uuid4(), after_seq=2**63), "after_seq"),
    ],
)
async def test_an_argument_that_cannot_be_is_named(repo: SessionRepository, call: Any, name: str) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await call(repo)


async def test_statistics_sum_the_counters(repo: SessionRepository, new_session: NewSession) -> None:
    user = uuid4()
    first, second = await new_session(user_id=user), await new_session(user_id=user)
    for session, count in ((first, 3), (second, 2)):
        for _ in range(count):
            await repo.add_message_to_session(session.id, {"role": "user", "token_count": 10})

    stats = await repo.get_session_stats(user)
    none = await repo.get_session_stats(uuid4())

    assert (stats.total_sessions, stats.active_sessions, stats.total_messages, stats.total_tokens) == (2, 2, 5, 50)
    assert stats.avg_messages_per_session == 2.5
    assert (none.total_sessions, none.avg_messages_per_session) == (0, 0.0)


async def test_by_agent_by_title_and_by_recency(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    old = await new_session(user_id="ada", agent_id="poet", title="Ode")
    await db.execute(update(Session).where(Session.id == old.id).values(last_activity_at=PAST))
    new = await new_session(user_id="ada", agent_id="poet", title="Ode")
    other = await new_session(user_id="bob", agent_id="poet", status="failed")

    assert await repo.get_sessions_by_agent("poet") == [other, new, old]
    assert await repo.get_sessions_by_agent("poet", active_only=True) == [new, old]
    assert await repo.get_session_by_title("ada", "Ode") is new
    assert await repo.get_session_by_title("ada", "ode") is None
    assert await repo.get_recent_sessions("ada", hours=1) == [new]


async def test_all_sessions_are_walked_in_pages(
    repo: SessionRepository, new_session: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that change meanwhile; one that is deleted before its page is left out."""
    monkeypatch.setattr(listing, "_PAGE", 3)
    user = uuid4()
    sessions = [await new_session(user_id=user, agent_id="a" if number % 2 else "b") for number in range(10)]
    other = await new_session(agent_id="a")

    walked = []
    async for session in repo.iter_sessions(user_id=user):
        walked.append(session.id)
        if len(walked) == 1:
            await repo.delete(sessions[5].id)
            await repo.add_message_to_session(sessions[7].id, {"role": "user"})

    assert walked == [each.id for each in sorted(sessions, key=lambda each: each.id) if each is not sessions[5]]
    of_agent = {each.id async for each in repo.iter_sessions(agent_id="a")}
    assert of_agent == {sessions[place].id for place in (1, 3, 7, 9)} | {other.id}
    assert {each.id async for each in repo.iter_sessions(user_id=user, agent_id="b")} == {
        each.id for each in sessions[::2]
    }
    assert len([each async for each in repo.iter_sessions()]) == 10
    with pytest.raises(SessionValueError, match="agent_id"):
        [each async for each in repo.iter_sessions(agent_id="")]


async def test_nobodys_sessions_are_not_everybodys(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(title="Trains")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "Trains to Bergen"})
    nobody: Any = None

    for asked in (
        repo.get_user_sessions(nobody),
        repo.get_user_sessions_page(nobody),
        repo.get_paginated_user_sessions(nobody),
        repo.get_recent_sessions(nobody),
        repo.get_session_by_title(nobody, "Trains"),
        repo.search_sessions(nobody, "Trains"),
        repo.search_sessions(nobody, "Tr"),
        repo.search_messages(nobody, "Trains"),
    ):
        with pytest.raises(SessionValueError, match="user_id must be a string, not NoneType"):
            await asked
