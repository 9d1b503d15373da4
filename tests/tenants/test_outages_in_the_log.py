"""An outage is one line when it begins and one when it is over, whatever hangs on the server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError
from agent_service.infrastructure.cache.factory import close_cache, get_cache, open_cache
from agent_service.infrastructure.database import SessionWriter, close_database, get_database, get_session, run_cleanup
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors.outages import tell_outage
from agent_service.infrastructure.database.maintenance import CleanupMetrics
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.outbox import invalidate_in, run_outbox
from agent_service.infrastructure.outbox.counters import counters
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.tenants import handlers as registry
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger
from agent_service.tenants.trigger import RedisTrigger
from tests.database.test_group_commit_faults import Restarts, migrated
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.redis import RedisServer
from tests.support.outbox import configure, until_drained
from tests.support.waiting import until

SUBSCRIPTIONS = 40
"""More than the pool has connections, so that some wait for one when the outage begins."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of this test's own, which it may stop."""
    with running_postgres(durable=True) as server:
        yield server


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """The cache and the database are closed afterwards, and no handler is left."""
    before = dict(registry._handlers)
    yield
    registry._handlers.clear()
    registry._handlers.update(before)
    await close_cache()
    await close_redis()
    await close_database()


@asynccontextmanager
async def background(*work: Awaitable[object]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)


async def follow(id_: UUID, seen: list[Any]) -> None:
    async with get_session() as db:
        feed = SessionRepository(db).subscribe(id_)
    async with aclosing(feed) as messages:
        async for message in messages:
            seen.append(message.content)  # noqa: PERF401 - it has no end


def of_outages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and logger of every line that is not from a client library."""
    return [(each.levelname, each.name) for each in caplog.records if each.name.startswith("agent_service")]


async def test_an_outage_of_postgres_is_told_once_by_all_who_wait_for_it(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(monkeypatch, database_url=await migrated(postgres), redis_url="")
    server, seen, cleaned = Restarts(postgres), list[Any](), CleanupMetrics()
    async with get_session() as db:
        ids = [(await SessionRepository(db).create(Session(user_id="ada"))).id for _ in range(SUBSCRIPTIONS)]
    await open_cache("")
    work: list[Awaitable[object]] = [
        *(follow(id_, seen) for id_ in ids),
        run_cleanup(interval=0.2, metrics=cleaned),
        run_outbox(0.2),
    ]
    try:
        async with SessionWriter() as writer, background(*work):

            async def say_to_all() -> None:
                await asyncio.gather(*(writer.append(id_, {"role": "user", "content": "x"}) for id_ in ids))

            await say_to_all()
            await until(lambda: len(seen) == SUBSCRIPTIONS)
            caplog.set_level(logging.INFO, "agent_service")
            caplog.clear()  # the first process that has caches without Redis beside others says so
            failures = cleaned.failures + counters.failures
            await asyncio.to_thread(server.crash)
            with pytest.raises(DatabaseUnavailableError):
                await writer.append(ids[0], {"role": "user", "content": "lost"})
            await until(lambda: cleaned.failures + counters.failures >= failures + 4)
            during = of_outages(caplog)
            server.start()
            await until(lambda: not get_database().availability.away)
            await say_to_all()
            await until(lambda: len(seen) == 2 * SUBSCRIPTIONS)
            async with get_session() as db:
                invalidate_in(db, keys=["x"], namespace="users")
            await until_drained()
    finally:
        server.stop()

    assert during == [("WARNING", "agent_service.database")]
    assert of_outages(caplog) == [*during, ("INFO", "agent_service.database")]


async def test_a_pool_that_is_used_up_is_no_outage_of_the_database(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database, cleaned = DatabaseManager(postgres_url, pool_size=1, max_overflow=0, pool_timeout=0.05), CleanupMetrics()
    await database.prepare()
    caplog.set_level(logging.INFO, "agent_service")
    async with background(run_cleanup(interval=0.05, metrics=cleaned, database=database)):
        async with database.session() as db:
            await db.execute(text("SELECT 1"))
            await until(lambda: cleaned.failures >= 3)
        during = of_outages(caplog)
        await until(lambda: cleaned.rounds - cleaned.failures >= 2)
    await database.close()

    assert during == [("WARNING", "agent_service.database")]
    assert "cleanup of sessions fails" in caplog.text
    assert "no connection became free" in caplog.text
    assert "does not serve" not in caplog.text
    assert "cleanup of sessions works again" in caplog.text


async def test_a_statement_that_takes_too_long_is_no_outage_of_the_database(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = DatabaseManager(postgres_url, statement_timeout=0.05)
    await database.prepare()
    with pytest.raises(DatabaseUnavailableError) as slow:
        async with database.session() as db:
            await db.execute(text("SELECT pg_sleep(5)"))
    told = tell_outage(database.availability, slow.value)
    await database.close()

    assert not told
    assert "does not serve" not in caplog.text


async def test_an_outage_of_redis_is_told_once_by_all_who_wait_for_it(
    own_redis: RedisServer, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(
        monkeypatch,
        redis_url=own_redis.url,
        database_url=sqlite_url,
        redis_timeout="0.5",
        cache_l1_enabled="true",
        cache_breaker_open_seconds="0.05",
    )
    monkeypatch.setattr("agent_service.tenants.runner._OUTAGE_PAUSE", 0.05)
    handled: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("remind")
    async def remind(trigger: Trigger) -> None:
        handled.put_nowait(trigger.identifier)

    cache = await get_cache("users")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(background(run_outbox(0.1)))
        runner = TriggerRunner(poll_interval=0.1, lease=1)
        await runner.start()
        stack.push_async_callback(runner.stop)
        await cache.set("ada", 1)
        await RedisTrigger("acme").set("remind", "before", timedelta(seconds=0.01))
        assert await handled.get() == "before"
        caplog.set_level(logging.INFO, "agent_service")

        own_redis.kill()
        failures = counters.failures
        async with get_session() as db:
            invalidate_in(db, keys=["ada"], namespace="users")
        await until(lambda: counters.failures >= failures + 4)
        for number in range(50):
            await cache.set(f"k{number}", number)
            with suppress(AgentServiceError):
                await RedisTrigger("acme").set("remind", "lost", timedelta(seconds=0.01))
        during = of_outages(caplog)
        own_redis.restart()
        await until_serving(lambda: cache.set("ada", 2), caplog)
        await until_drained()
        await RedisTrigger("acme").set("remind", "after", timedelta(seconds=0.01))
        while await handled.get() != "after":
            pass

    assert during == [("WARNING", "agent_service.redis")]
    assert of_outages(caplog) == [*during, ("INFO", "agent_service.redis")]


async def until_serving(use: Callable[[], Awaitable[object]], caplog: pytest.LogCaptureFixture) -> None:
    """Use what is away until the log says that it is back."""

    async def back() -> bool:
        await use()
        return "serves again" in caplog.text

    await until(back)
