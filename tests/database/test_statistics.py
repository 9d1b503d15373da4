"""Sums come from counters, and a recount proves the counters. On both engines."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository, SessionStats
from agent_service.testing import FakeClock
from tests.database.conftest import NewSession

DAY = 86_400


async def say(repo: SessionRepository, session: Session, count: int, tokens: int = 3) -> None:
    for _ in range(count):
        await repo.add_message_to_session(session.id, {"role": "user", "token_count": tokens})


async def test_sums_by_user_agent_and_time(db: AsyncSession) -> None:
    clock = FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
    repo = SessionRepository(db, clock=clock)
    for user, agent, count in (("ada", "a", 1), ("ada", "b", 2), ("bob", "a", 4), ("ada", None, 8)):
        await say(repo, await repo.create(Session(user_id=user, agent_id=agent)), count)
        clock.advance(DAY)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert await repo.get_session_stats() == SessionStats(4, 0, 15, 45)
    assert (await repo.get_session_stats("ada")).total_messages == 11
    assert (await repo.get_session_stats(agent_id="a")).total_messages == 5
    assert (await repo.get_session_stats("ada", agent_id="a")).total_messages == 1
    since, until = start + timedelta(days=1), start + timedelta(days=3)
    assert (await repo.get_session_stats(since=since, until=until)).total_messages == 6
    assert await repo.get_session_stats(until=start) == SessionStats(0, 0, 0, 0)
    assert {key: each.total_messages for key, each in (await repo.get_session_stats(group_by="agent")).items()} == {
        "a": 5, "b": 2, None: 8,
    }  # fmt: skip
    by_day = await repo.get_session_stats("ada", group_by="day")
    assert list(by_day) == [date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 4)]
    assert by_day[date(2026, 1, 2)] == SessionStats(1, 0, 2, 6)
    assert await repo.get_session_stats("nobody", group_by="day") == {}


async def test_a_day_is_a_day_in_utc_whatever_the_database_thinks(db: AsyncSession, database: DatabaseManager) -> None:
    if not database.embedded:
        await db.execute(text("SET LOCAL TIME ZONE 'Pacific/Auckland'"))
    repo = SessionRepository(db, clock=FakeClock(datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC)))
    await repo.create(Session(user_id="ada"))

    assert list(await repo.get_session_stats(group_by="day")) == [date(2026, 1, 1)]


async def test_messages_are_not_read_for_sums(
    repo: SessionRepository, new_session: NewSession, database: DatabaseManager
) -> None:
    await say(repo, await new_session(user_id="ada"), 2)
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    for group_by in (None, "agent", "day"):
        await repo.get_session_stats("ada", group_by=group_by)

    assert len(sent) == 3
    assert not [each for each in sent if "session_messages" in each]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"group_by": "week"}, "group_by"),
        ({"group_by": []}, "group_by"),
        ({"since": "yesterday"}, "since"),
        ({"until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001
        ({"agent_id": 7}, "agent_id"),
        ({"user_id": ""}, "user_id"),
    ],
)
async def test_arguments_that_cannot_be_are_refused(
    repo: SessionRepository, arguments: dict[str, Any], name: str
) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await repo.get_session_stats(**arguments)


async def test_a_recount_proves_and_repairs(db: AsyncSession, repo: SessionRepository, new_session: NewSession) -> None:
    right, wrong = await new_session(), await new_session()
    await say(repo, right, 2)
    await say(repo, wrong, 3)
    await repo.pop_message(right.id)
    fork = await repo.fork(wrong.id, 2)
    assert await repo.recount() == []
    drifted = "UPDATE agent_service_sessions SET total_messages = 7, total_tokens = 0, last_seq = 2 WHERE last_seq = 3"
    await db.execute(text(drifted))

    (drift,) = await repo.recount()

    assert (drift.session_id, drift.total_messages, drift.total_tokens, drift.last_seq) == (
        wrong.id, (7, 3), (0, 9), (2, 3),
    )  # fmt: skip
    assert (wrong.total_messages, wrong.total_tokens, wrong.last_seq) == (3, 9, 3)
    assert await repo.recount() == await repo.recount(fork.id) == await repo.recount(str(wrong.id)) == []
    with pytest.raises(SessionNotFoundError):
        await repo.recount(uuid4())


async def test_an_empty_session_with_a_wrong_count_is_found(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await db.execute(text("UPDATE agent_service_sessions SET total_messages = 1"))

    (drift,) = await repo.recount(session.id)

    assert drift.total_messages == (1, 0)


async def test_a_recount_goes_over_every_page(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_service.infrastructure.database.repositories.statistics._PAGE", 2)
    for _ in range(5):
        await new_session()
    await db.execute(text("UPDATE agent_service_sessions SET total_tokens = 1"))

    assert len(await repo.recount()) == 5
    assert await repo.recount() == []
