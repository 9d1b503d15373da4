"""Statuses of many sessions, and the end of expired ones, on call and on a schedule. On both engines."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database import get_database, get_session, run_cleanup
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import sweep
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.expiry import expire_batch
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing.clock import FakeClock
from tests.database.conftest import NewSession

PAST = datetime(2020, 1, 1, tzinfo=UTC)


async def test_many_sessions_change_status_at_once(repo: SessionRepository, new_session: NewSession) -> None:
    sessions = [await new_session() for _ in range(3)]
    ids = [each.id for each in sessions]

    count = await repo.bulk_update_session_status(session_ids=[*ids, ids[0], uuid4()], status=SessionStatus.COMPLETED)

    assert count == 3
    assert {each.status for each in sessions} == {SessionStatus.COMPLETED}
    assert all(each.completed_at for each in sessions)
    assert await repo.bulk_update_session_status([str(ids[0])], "active") == 1
    assert sessions[0].completed_at is None
    assert await repo.bulk_update_session_status([], "failed") == 0


async def test_more_ids_than_a_statement_takes(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    assert await repo.bulk_update_session_status([*(uuid4() for _ in range(40_000)), session.id], "failed") == 1


@pytest.mark.parametrize(
    ("ids", "status", "name"),
    [
        ([uuid4()], "sleeping", "status"),
        ([uuid4()], None, "status"),
        ([uuid4(), "not-a-uuid"], "failed", r"session_ids\[1\]"),
        ([7], "failed", r"session_ids\[0\]"),
        ("0190", "failed", "session_ids"),
        (None, "failed", "session_ids"),
    ],
)
async def test_a_bad_id_or_status_changes_nothing(repo: SessionRepository, ids: Any, status: Any, name: str) -> None:
    with pytest.raises(SessionValueError, match=f"^{name} "):
        await repo.bulk_update_session_status(ids, status)


async def test_cleanup_completes_what_expired_and_nothing_else(
    repo: SessionRepository, new_session: NewSession
) -> None:
    expired = await new_session(expires_at=PAST)
    failed = await new_session(expires_at=PAST, status="failed")
    deleted = await new_session(expires_at=PAST)
    await repo.delete(deleted.id)
    alive = await new_session()
    activity = expired.last_activity_at

    first, second = await repo.cleanup_expired_sessions(), await repo.cleanup_expired_sessions()

    assert (first, second) == (1, 0)
    assert (expired.status, expired.last_activity_at) == (SessionStatus.COMPLETED, activity)
    assert expired.completed_at is not None
    assert (failed.status, alive.status) == (SessionStatus.FAILED, SessionStatus.ACTIVE)


async def test_a_sweep_goes_over_all_tenants_in_batches(database: DatabaseManager) -> None:
    async with database.session() as db:
        for tenant in ("", "a", "b"):
            for _ in range(3):
                await SessionRepository(db, tenant).create(Session(user_id="ada", expires_at=PAST))
        alive = await SessionRepository(db).create(Session(user_id="ada"))

    assert await sweep(database, batch_size=2) == 9
    assert await sweep(database, batch_size=2) == 0

    async with database.session() as db:
        found = await SessionRepository(db).get(alive.id)
    assert found is not None
    assert found.status is SessionStatus.ACTIVE


async def test_a_batch_of_the_sweep_is_never_larger_than_it_may_be(database: DatabaseManager) -> None:
    async with database.session() as db:
        for _ in range(100):
            await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST))
        statement = expire_batch(db.get_bind().dialect.name, datetime.now(UTC), 10)
        # Without statistics PostgreSQL's planner thinks of a table as nearly empty.
        counts = [(await db.execute(statement)).rowcount for _ in range(2)]  # type: ignore[attr-defined]

    assert counts == [10, 10]


async def test_waiting_for_a_writer_makes_no_batch_of_the_sweep_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, clock = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}"), FakeClock()
    monkeypatch.setattr("agent_service.infrastructure.database.maintenance.batches.SYSTEM_CLOCK", clock)
    async with database.session() as db:
        for _ in range(100):
            await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST))
    batches: list[int] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "completed_at" in statement and statement.startswith("UPDATE"):
            batches.append(cursor.rowcount)

    event.listen(database.engine.sync_engine, "after_cursor_execute", note)

    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="eve"))
        sweeping = asyncio.create_task(sweep(database, clock=SYSTEM_CLOCK))
        while database.get_metrics()["in_use"] < 2:
            await asyncio.sleep(0)
        clock.advance(10)  # while the sweep waits for the write lock
    await sweeping
    await database.close()

    assert batches == [50, 50]


async def test_a_large_sweep_leaves_no_merging_of_titles_to_writers(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada", title="Zanzibar", expires_at=PAST))
        columns = ", ".join(each.name for each in Session.__table__.columns if each.name != "id")
        await db.execute(
            text(
                f"INSERT INTO agent_service_sessions (id, {columns}) SELECT gen_random_uuid(), {columns} "
                "FROM agent_service_sessions, "
                f"generate_series(1, 4999) WHERE id = '{session.id}'"
            )
        )
        index = {"index": (await (await db.connection()).run_sync(names_of)).full("ix_sessions_title_trigram")}
        if not (await db.execute(text("SELECT to_regclass(:index)"), index)).scalar():
            pytest.skip("this PostgreSQL has no pg_trgm")

    swept = await sweep(database)
    async with database.session() as db:
        merged = (await db.execute(text("SELECT gin_clean_pending_list(CAST(:index AS regclass))"), index)).scalar()
        found = await SessionRepository(db).search_sessions("ada", "zanzibar", limit=1_000)
    await database.close()

    assert swept == 5_000
    assert merged == 0
    assert len(found) == 1_000


async def test_sweeps_at_the_same_time_share_the_work(database: DatabaseManager) -> None:
    async with database.session() as db:
        for _ in range(40):
            await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST))

    counts = await asyncio.gather(*(sweep(database, batch_size=5) for _ in range(4)))

    assert sum(counts) + await sweep(database) == 40


async def test_a_session_that_is_being_written_is_not_completed(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST))

    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        sweeping = asyncio.create_task(sweep(database))
        if not database.embedded:
            assert await sweeping == 0  # It does not wait for the writer either.
    assert await sweeping == 0

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert found.status is SessionStatus.ACTIVE
    assert found.expires_at > datetime.now(UTC) + timedelta(hours=23)


@pytest.mark.usefixtures("configured")
async def test_the_schedule_sweeps_until_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("agent_service").propagate = True
    caplog.set_level(logging.INFO, "agent_service")
    async with get_session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada", expires_at=PAST))

    cleanup = asyncio.create_task(run_cleanup(interval=0.01))
    while "completed 1 expired" not in caplog.text:
        await asyncio.sleep(0.005)
    cleanup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleanup

    async with get_session() as db:
        found = await SessionRepository(db).get(session.id)
    assert found is not None
    assert found.status is SessionStatus.COMPLETED
    assert get_database().engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "1", None, True])
async def test_a_bad_interval_is_refused(interval: Any) -> None:
    with pytest.raises(SessionValueError, match="interval"):
        await run_cleanup(interval=interval)


async def test_a_bad_batch_size_is_refused() -> None:
    with pytest.raises(SessionValueError, match="batch_size"):
        await run_cleanup(interval=1, batch_size=0)
