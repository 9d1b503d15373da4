"""Hidden sessions come back or go for good; nobody else's history suffers. On both engines."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionValueError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_session, run_cleanup
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import CleanupMetrics, purge, sweep
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing import FakeClock
from tests.database.conftest import NewSession

PAST = datetime(2020, 1, 1, tzinfo=UTC)
LATER = timedelta(days=1)


async def count(db: AsyncSession, table: str = "sessions") -> int:
    found: int = (await db.execute(text(f"SELECT count(*) FROM agent_service_{table}"))).scalar_one()
    return found


async def test_a_hidden_session_comes_back_as_it_was(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(context={"a": 1})
    await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})

    assert await repo.delete(session.id)
    assert await repo.get(session.id) is None
    assert await repo.restore(session.id)
    assert [await repo.restore(each) for each in (session.id, uuid4())] == [False, False]

    found = await repo.get(str(session.id))
    assert found is not None
    assert (found.context, found.total_messages, found.deleted_at) == ({"a": 1}, 1, None)
    assert len(await repo.get_messages(session.id)) == 1


async def test_only_what_was_hidden_long_enough_ago_is_purged(db: AsyncSession) -> None:
    clock = FakeClock()
    repo = SessionRepository(db, clock=clock)
    sessions = [await repo.create(Session(user_id="ada")) for _ in range(4)]
    for session in sessions[:3]:
        await repo.add_message_to_session(session.id, {"role": "user"})
        await repo.delete(session.id)
        clock.advance(3_600)

    assert await repo.purge_deleted(timedelta(hours=4)) == 0
    assert await repo.purge_deleted(timedelta(hours=2), 1) == 1
    assert await repo.restore(sessions[0].id) is False
    assert await repo.purge_deleted(clock.now() - timedelta(hours=1)) == 1
    assert await repo.restore(sessions[2].id)
    assert (await count(db), await count(db, "session_messages")) == (2, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
async def test_purging_goes_on_batch_by_batch_until_nothing_is_left(database: DatabaseManager, batch_size: int) -> None:
    clock = FakeClock(datetime.now(UTC) + LATER)
    async with database.session() as db:
        repo = SessionRepository(db)
        sessions = [await repo.create(Session(user_id="ada")) for _ in range(6)]
        for each in sessions[:5]:
            await repo.add_message_to_session(each.id, {"role": "user"})
            await repo.delete(each.id)
        fork = await repo.fork(sessions[5].id, 0)

    async with database.session() as db:
        removed = await SessionRepository(db, clock=clock).purge_deleted(timedelta(), batch_size)
    async with database.session() as db:
        again = await SessionRepository(db, clock=clock).purge_deleted(timedelta(), batch_size)
        left = await count(db), await count(db, "session_messages")
        kept = {each.id for each in await SessionRepository(db).get_user_sessions("ada")}

    assert (removed, again, left, kept) == (5, 0, (2, 0), {sessions[5].id, fork.id})


async def test_a_purge_is_undone_with_its_transaction(database: DatabaseManager) -> None:
    clock = FakeClock(datetime.now(UTC) + LATER)
    async with database.session() as db:
        repo = SessionRepository(db)
        sessions = [await repo.create(Session(user_id="ada")) for _ in range(3)]
        for each in sessions:
            await repo.delete(each.id)

    async with database.session() as db:
        undone = await SessionRepository(db, clock=clock).purge_deleted(timedelta(), 1)
        await db.rollback()
    async with database.session() as db:
        assert (undone, await count(db)) == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((timedelta(seconds=-1),), "older_than"),
        ((30,), "older_than"),
        ((datetime(2026, 1, 1),), "older_than"),  # noqa: DTZ001
        ((timedelta.max,), "older_than"),
        ((timedelta(), 0), "batch_size"),
        ((timedelta(), 10_001), "batch_size"),
    ],
)
async def test_a_retention_that_cannot_be_is_refused(repo: SessionRepository, arguments: Any, name: str) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await repo.purge_deleted(*arguments)


async def test_erasing_a_user_leaves_nothing_of_hers(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    for number in range(3):
        session = await new_session(user_id="ada", title="needle")
        await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
        if number == 1:
            await repo.delete(session.id)
    fork = await repo.fork(session.id, 1)
    bobs = await new_session(user_id="bob")

    assert await repo.erase_user("ada") == 4
    assert await repo.erase_user("ada") == 0

    assert (await count(db), await count(db, "session_messages")) == (1, 0)
    assert await repo.get_user_sessions("bob") == [bobs]
    assert await repo.get(fork.id) is None
    assert await repo.search_messages("ada", "needle") == []


async def test_a_fork_that_went_to_another_user_keeps_what_it_shows(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada")
    for content in ("one", "two"):
        await repo.add_message_to_session(session.id, {"role": "user", "content": content})
    between = await repo.fork(session.id, 2)
    fork = await repo.fork(between.id, 1)
    fork.user_id = "bob"
    await repo.update(fork)

    assert await repo.erase_user("ada") == 2

    assert [each.content for each in await repo.get_messages(fork.id)] == ["one"]
    assert await repo.recount() == []


async def test_purges_at_the_same_time_share_the_work(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db, "t")
        for _ in range(30):
            await repo.delete((await repo.create(Session(user_id="ada"))).id)

    clock = FakeClock(datetime.now(UTC) + LATER)
    counts = await asyncio.gather(*(purge(database, timedelta(), batch_size=4, clock=clock) for _ in range(4)))

    assert sum(counts) + await purge(database, timedelta(), clock=clock) == 30
    async with database.session() as db:
        assert await count(db) == 0


async def test_what_another_transaction_holds_is_left_for_later(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        sessions = [await repo.create(Session(user_id="ada")) for _ in range(2)]
        for session in sessions:
            await repo.delete(session.id)
    clock = FakeClock(datetime.now(UTC) + LATER)

    async with database.session() as db:
        await SessionRepository(db).restore(sessions[0].id)
        if database.embedded:
            purging = asyncio.create_task(purge(database, timedelta(), clock=clock))
        else:
            assert await purge(database, timedelta(), clock=clock) == 1
    if database.embedded:
        assert await purging == 1

    async with database.session() as db:
        assert await SessionRepository(db).get(sessions[0].id) is not None


@pytest.mark.parametrize("held", ["parent", "fork"])
async def test_a_purge_waits_for_no_fork_and_no_parent_that_another_transaction_holds(
    postgres_url: str, held: str
) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        repo = SessionRepository(db)
        family = {"parent": await repo.create(Session(user_id="ada"))}
        await repo.add_message_to_session(family["parent"].id, {"role": "user"})
        family["middle"] = await repo.fork(family["parent"].id, 1)
        family["fork"] = await repo.fork(family["middle"].id, 1)
        await repo.delete((await repo.create(Session(user_id="bob"))).id)
        await repo.delete(family["middle"].id)
    clock = FakeClock(datetime.now(UTC) + LATER)

    async with database.session() as db:
        await db.execute(
            text("SELECT 1 FROM agent_service_sessions WHERE id = :id FOR UPDATE"), {"id": family[held].id}
        )
        async with asyncio.timeout(60):
            assert await purge(database, timedelta(), clock=clock) == 1
    assert await purge(database, timedelta(), clock=clock) == 1
    async with database.session() as db:
        assert len(await SessionRepository(db).get_messages(family["fork"].id)) == 1
    await database.close()


async def test_a_batch_grows_and_shrinks_but_misses_nothing(database: DatabaseManager) -> None:
    async with database.session() as db:
        for _ in range(300):
            db.add(await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST)))

    assert await sweep(database) == 300


@pytest.mark.usefixtures("configured")
async def test_the_schedule_purges_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("agent_service").propagate = True
    caplog.set_level(logging.INFO, "agent_service")
    async with get_session() as db:
        repo = SessionRepository(db, clock=FakeClock())
        hidden = await repo.create(Session(user_id="ada"))
        await repo.delete(hidden.id)
        await repo.create(Session(user_id="ada", expires_at=PAST))
    metrics = CleanupMetrics()

    cleanup = asyncio.create_task(run_cleanup(interval=0.01, purge_after=timedelta(days=1), metrics=metrics))
    while not metrics.last_success:
        await asyncio.sleep(0.005)
    cleanup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleanup

    assert (metrics.completed, metrics.purged, metrics.failures) == (1, 1, 0)
    assert metrics.rounds >= 1
    assert metrics.last_seconds > 0
    assert "removed 1 deleted sessions for good" in caplog.text


async def test_failures_are_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("agent_service").propagate = True
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:////nowhere/at/all.db")
    reset_settings()
    metrics = CleanupMetrics()

    cleanup = asyncio.create_task(run_cleanup(interval=0.001, metrics=metrics))
    while metrics.failures < 3:
        await asyncio.sleep(0.001)
    cleanup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleanup
    await close_database()

    assert metrics.last_success is None
    assert len([each for each in caplog.records if "does not serve" in each.message]) == 1


@pytest.mark.parametrize("retention", [30, timedelta(-1), "1 day"])
async def test_a_bad_retention_is_refused(retention: Any) -> None:
    with pytest.raises(SessionValueError, match="purge_after"):
        await run_cleanup(interval=1, purge_after=retention)
