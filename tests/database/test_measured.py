"""What appends, pools, subscriptions and the cleanup count."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest

from agent_service.core.errors import DatabaseUnavailableError, SessionNotFoundError
from agent_service.infrastructure.database import CleanupMetrics
from agent_service.infrastructure.database.append.measured import APPENDS
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.engine.measured import metrics_of
from agent_service.infrastructure.database.maintenance import cleanup
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.metrics.reading import Buckets, read
from tests.support.outbox import configure
from tests.support.waiting import until

MESSAGE = {"role": "user", "content": "Hi"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    database = DatabaseManager(database_url)
    yield database
    await database.close()


@pytest.fixture
async def session(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="ada"))).id


def counted() -> Callable[[str, str], int]:
    """Return a function that tells how many appends have had an outcome since now."""
    before = APPENDS.outcomes.copy()
    return lambda way, outcome: APPENDS.outcomes[way, outcome] - before[way, outcome]


async def test_a_writer_counts_batches_and_what_came_of_each_message(database: DatabaseManager, session: UUID):
    since, commits, messages = counted(), APPENDS.commits.count, APPENDS.batches.total
    async with SessionWriter(database) as writer:
        empty = writer.metrics()["pending"]
        appending = [asyncio.ensure_future(writer.append(session, MESSAGE)) for _ in range(20)]
        await asyncio.sleep(0)  # each of them has run to its first wait
        waiting = read()["writer_pending"][()]
        await asyncio.gather(*appending)
        with pytest.raises(SessionNotFoundError):
            await writer.append(uuid4(), MESSAGE)
        leaving = asyncio.ensure_future(writer.append(session, MESSAGE))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        metrics = writer.metrics()

    assert (empty, waiting, metrics["pending"]) == (0, 20, 0)
    assert (since("writer", "ok"), since("writer", "refused"), since("writer", "cancelled")) == (20, 1, 1)
    assert 20 < metrics["messages"] - messages <= 22
    assert 2 <= metrics["commits"] - commits <= 22
    assert metrics["outcomes"]["ok"] >= 20
    assert 0 < metrics["commit"]["p50_ms"] <= metrics["commit"]["p99_ms"]
    assert metrics["append"]["count"] >= 22
    assert read()["writer_pending"][()] == 0


async def test_a_repository_counts_messages_however_many_at_once(database: DatabaseManager, session: UUID):
    since, durations = counted(), APPENDS.durations["repository"].count
    async with database.session() as db:
        repository = SessionRepository(db)
        await repository.add_message_to_session(session, MESSAGE)
        await repository.add_messages_to_session(session, [MESSAGE] * 5)
        with pytest.raises(SessionNotFoundError):
            await repository.add_message_to_session(uuid4(), MESSAGE)

    assert (since("repository", "ok"), since("repository", "refused")) == (6, 1)
    assert APPENDS.durations["repository"].count == durations + 3


async def test_a_database_that_cannot_be_reached_is_counted_as_unavailable():
    since = counted()
    away = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    async with SessionWriter(away, timeout=0.5) as writer:
        with pytest.raises(DatabaseUnavailableError):
            await writer.append(uuid4(), MESSAGE)
    with pytest.raises(DatabaseUnavailableError):
        async with away.session() as db:
            await SessionRepository(db).add_message_to_session(uuid4(), MESSAGE)
    await away.close()

    assert (since("writer", "unavailable"), since("repository", "unavailable")) == (1, 1)


async def test_pools_count_by_role_until_they_are_closed(database_url: str):
    metrics = metrics_of("DATABASE_REPLICA_URL")
    waits, failures = metrics.waits.count, metrics.failures
    database = DatabaseManager(
        database_url, pool_size=1, max_overflow=0, pool_timeout=0.05, setting="DATABASE_REPLICA_URL"
    )
    await database.prepare()
    async with database.session() as held:
        await held.connection()
        during = read()
        with pytest.raises(DatabaseUnavailableError):
            async with database.session() as another:
                await another.connection()
    after = read()
    await database.close()
    closed = read()

    assert metrics.waits.count > waits
    assert metrics.failures == failures + 1
    assert during["db_pool_connections"]["replica", "in_use"] == 1
    assert (after["db_pool_connections"]["replica", "in_use"], after["db_pool_connections_limit"]["replica",]) == (0, 1)
    assert closed["db_pool_connections_limit"]["replica",] == 0


async def test_what_sqlalchemy_logs_about_a_pool_stays_under_its_name(
    database_url: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.pool")
    database = DatabaseManager(database_url)
    async with database.session() as db:
        await db.connection()
    await database.close()

    pools = [each.name for each in caplog.records if "Pool" in each.name]
    assert pools
    assert all(each.startswith("sqlalchemy.pool.") for each in pools)


async def test_a_wait_for_a_connection_is_as_long_as_it_was(database_url: str):
    database = DatabaseManager(database_url, pool_size=1, max_overflow=0)
    await database.prepare()
    waits = metrics_of("DATABASE_URL").waits
    before = waits.total

    async def wait() -> None:
        async with database.session() as db:
            await db.connection()

    async with database.session() as held:
        await held.connection()
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
    await waiting
    await database.close()

    assert waits.total - before > 0.09


async def test_subscriptions_are_counted(database: DatabaseManager, session: UUID):
    async with database.session() as db:
        repository = SessionRepository(db)
        first, second = repository.subscribe(session), repository.subscribe(session)
        async with aclosing(first), aclosing(second):
            reading = [asyncio.ensure_future(anext(each)) for each in (first, second)]
            await until(lambda: database.feed_metrics()["subscriptions"] == 2)
            shown = read()["feed_subscriptions"][()], database.feed_metrics()["sessions"]
            await repository.add_message_to_session(session, MESSAGE)
            await db.commit()
            await asyncio.gather(*reading)
    await until(lambda: database.feed_metrics()["subscriptions"] == 0)

    assert shown == (2, 1)


async def test_all_schedules_of_the_cleanup_are_shown(database_url: str, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, database_url=database_url)
    await get_database().prepare()
    before, own = read(), CleanupMetrics()
    tasks = [
        asyncio.create_task(cleanup.run_cleanup(interval=60)),
        asyncio.create_task(cleanup.run_cleanup(interval=60, metrics=own)),
    ]
    rounds = before["cleanup_rounds"][()]
    assert not isinstance(rounds, Buckets)
    await until(lambda: own.last_success is not None and read()["cleanup_rounds"][()] == rounds + 2)
    for each in tasks:
        each.cancel()
    await asyncio.wait(tasks)
    success = read()["cleanup_last_success_timestamp_seconds"][()]
    await close_database()

    assert own.rounds == 1
    assert own.last_success is not None
    assert success == pytest.approx(own.last_success.timestamp(), abs=60)
