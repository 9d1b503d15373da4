"""A host whose clock is wrong removes and ends nothing too early: on PostgreSQL the database's clock decides."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from agent_service.core.clock import SystemClock
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import purge, sweep
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing.clock import FakeClock

MONTH = timedelta(days=30)
WEEK = timedelta(days=7)
Skew = Callable[[timedelta], None]


@pytest.fixture
def skew(monkeypatch: pytest.MonkeyPatch) -> Skew:
    """Set this host's clock, as every default of the package reads it."""

    def set_clock(by: timedelta) -> None:
        monkeypatch.setattr(SystemClock, "now", staticmethod(lambda: datetime.now(UTC) + by))

    return set_clock


@pytest.fixture
async def postgres(postgres_url: str) -> DatabaseManager:
    return DatabaseManager(postgres_url)


async def use(database: DatabaseManager, method: str, *arguments: object, **given: object) -> object:
    async with database.session() as db:
        result: object = await getattr(SessionRepository(db), method)(*arguments, **given)
        return result


@pytest.fixture
async def session(postgres: DatabaseManager) -> Session:
    created = await use(postgres, "create", Session(user_id="ada"))
    assert isinstance(created, Session)
    return created


async def test_a_host_ahead_of_time_purges_nothing_early(
    postgres: DatabaseManager, session: Session, skew: Skew
) -> None:
    await use(postgres, "delete", session.id)
    skew(2 * MONTH)

    assert await purge(postgres, MONTH) == 0
    assert await use(postgres, "purge_deleted", MONTH) == 0
    assert await purge(postgres, timedelta()) == 1
    await postgres.close()


async def test_what_a_host_behind_time_deletes_is_kept_as_long_as_any_other(
    postgres: DatabaseManager, session: Session, skew: Skew
) -> None:
    skew(-2 * MONTH)
    await use(postgres, "delete", session.id)
    skew(timedelta())

    assert await purge(postgres, MONTH) == 0
    assert await use(postgres, "restore", session.id)
    await postgres.close()


async def test_a_host_ahead_of_time_ends_nothing_early(postgres: DatabaseManager, session: Session, skew: Skew) -> None:
    skew(MONTH)

    assert await sweep(postgres) == 0
    assert await use(postgres, "cleanup_expired_sessions") == 0
    await postgres.close()


async def test_appends_of_a_host_behind_time_take_nothing_from_a_session(
    postgres: DatabaseManager, session: Session, skew: Skew
) -> None:
    skew(-MONTH)
    await use(postgres, "add_message_to_session", session.id, {"role": "user"})
    skew(timedelta())

    assert await sweep(postgres) == 0
    found = await use(postgres, "get", session.id)
    assert isinstance(found, Session)
    assert (found.status, found.expires_at) == (SessionStatus.ACTIVE, session.expires_at)
    await postgres.close()


async def test_a_session_made_by_a_host_behind_time_ends_early_and_is_not_lost(
    postgres: DatabaseManager, skew: Skew
) -> None:
    skew(-MONTH)
    early = await use(postgres, "create", Session(user_id="ada"))
    assert isinstance(early, Session)
    skew(timedelta())

    assert await sweep(postgres) == 1
    assert await purge(postgres, WEEK) == 0
    assert await use(postgres, "bulk_update_session_status", [early.id], "active") == 1
    await use(postgres, "add_message_to_session", early.id, {"role": "user"})
    assert await sweep(postgres) == 0
    await postgres.close()


async def test_a_clock_that_is_given_decides(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        gone = await SessionRepository(db).create(Session(user_id="ada"))
        await SessionRepository(db).delete(gone.id)
    clock = FakeClock(datetime.now(UTC) + 2 * MONTH)

    assert await purge(database, MONTH, clock=clock) == 1
    assert await sweep(database, clock=clock) == 1
