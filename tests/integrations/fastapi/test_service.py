"""The life of a service: what it opens, and that nothing is left of it."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError, RuntimeStateError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import get_cache, get_redis_manager
from agent_service.infrastructure.database import DatabaseManager, get_session
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi import AgentService
from agent_service.integrations.fastapi.closing import Closing
from agent_service.integrations.fastapi.stopping import _Link
from agent_service.runtime import AgentRuntime, GlobalSymphonyConfig
from agent_service.tenants import RedisTrigger, TriggerRunner
from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy
from tests.support.embedded import own_servers
from tests.support.waiting import ticking, until


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After a test there is no task, and no handler of signals."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left
    assert not any(isinstance(signal.getsignal(each), _Link) for each in (signal.SIGTERM, signal.SIGINT))


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_them(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name.upper(), value)
        reset_settings()

    return set_them


async def run(service: AgentService) -> None:
    async with service.lifespan(FastAPI()):
        pass


def broken() -> TriggerRunner:
    raise LookupError("no handlers")


async def test_a_service_opens_what_was_asked_for_and_closes_it(
    database_url: str, redis_url: str, settings: Callable[..., None]
) -> None:
    settings(database_url=database_url, redis_url=redis_url)
    service = AgentService(writer=True, cleanup=True, outbox=True, triggers=TriggerRunner, runtime=True)

    async with service.lifespan(FastAPI()):
        async with service.database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        message = await service.writer.append(session.id, {"role": "user", "content": "hello"})
        cache = await service.cache("users")
        await cache.set("ada", 1)
        runtime = service.runtime
        tasks = {task.get_name() for task in asyncio.all_tasks()}

        assert (message.seq, await cache.get("ada"), AgentRuntime.get() is runtime) == (1, 1, True)
        assert {"agent-service-cleanup", "agent-service-outbox"} <= tasks
        assert (runtime.redis, runtime.database) == (service.parts.redis, service.database)

    assert runtime.is_started is False


@pytest.mark.server
async def test_a_service_starts_a_redis_of_its_own_and_serves_with_it(
    sqlite_url: str, settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(database_url=sqlite_url, redis_url="embedded://")
    service = AgentService(cleanup=True, outbox=True, triggers=TriggerRunner, start_degraded=False)
    with own_servers(monkeypatch):
        async with service.lifespan(FastAPI()):
            redis, cache = await get_redis_manager(), await service.cache("users")
            await cache.set("ada", 1)
            await RedisTrigger(tenant="acme").set("greet", "ada", ttl_seconds=60)
            health = await redis.health_check()
            stored = await redis.scan_keys("users:*"), await RedisTrigger(tenant="acme").pending()

            assert (redis.is_available, health["ok"]) == (True, True)
            assert [len(each) for each in stored] == [1, 1]
            assert await cache.get("ada") == 1


async def test_a_service_that_runs_again_begins_anew(database_url: str, settings: Callable[..., None]) -> None:
    settings(database_url=database_url)
    service = AgentService(writer=True, cleanup=True)
    events = []
    for _ in range(2):
        async with service.lifespan(FastAPI()):
            events.append(service.stopping)
        assert events[-1].is_set()

    assert events[0] is not events[1]


async def test_parts_that_were_not_asked_for_name_the_argument() -> None:
    service = AgentService(cache=False, database=False)
    async with service.lifespan(FastAPI()):
        for name in ("database", "writer", "runtime"):
            with pytest.raises(RuntimeStateError, match=f"AgentService\\({name}=True\\)"):
                getattr(service, name)
        with pytest.raises(RuntimeStateError, match=r"AgentService\(cache=True\)"):
            await service.cache("users")


async def test_a_service_that_does_not_run_says_so() -> None:
    with pytest.raises(RuntimeStateError, match="does not run"):
        _ = AgentService().stopping


async def test_a_service_runs_once_at_a_time() -> None:
    service = AgentService(database=False)
    async with service.lifespan(FastAPI()):
        with pytest.raises(RuntimeStateError, match="runs already"):
            await run(service)
        assert service.started


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"database": False, "writer": True}, "writer needs a database"),
        ({"database": False, "cleanup": True}, "cleanup needs a database"),
        ({"database": False, "outbox": True}, "outbox needs a database"),
        ({"cache": False, "outbox": True}, "outbox needs the cache"),
        ({"cleanup": -1}, "cleanup must be seconds"),
        ({"cleanup": "60"}, "cleanup must be seconds"),
        ({"purge_after": timedelta(days=30)}, "purge_after is for the cleanup"),
        ({"purge_threads_after": timedelta(days=30)}, "purge_threads_after is for the cleanup"),
        ({"cleanup": True, "purge_conversations_after": 30}, "purge_conversations_after must be a timedelta"),
        ({"cleanup": True, "purge_after": 30}, "purge_after must be a timedelta"),
        ({"database": None}, "database must be True, False, a URL or a DatabaseManager"),
        ({"database": DatabaseManager}, "database must be"),
        ({"writer": 1}, "writer must be True or False"),
        ({"runtime": {}}, "runtime must be"),
        ({"triggers": True}, "triggers must be TriggerRunner"),
        ({"background": [None]}, "background must be a list of coroutine functions"),
        ({"background": "work"}, "background must be"),
        ({"tenant": "acme"}, "tenant must be a function of a request"),
        ({"user": "ada"}, "user must be a function of a request"),
        ({"append_timeout": True}, "append_timeout must be seconds"),
        ({"shutdown_timeout": float("nan")}, "shutdown_timeout must be seconds"),
        ({"database": 5}, "database must be"),
        ({"background": [print, 7]}, "background must be"),
        ({"background": print}, "background must be"),
        ({"cleanup": True, "purge_after": timedelta(-1)}, "purge_after must be a timedelta"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AgentService(**arguments)


@pytest.mark.parametrize("lacking", ["triggers", "runtime", "own lifespan"])
async def test_a_failed_start_leaves_nothing(database_url: str, settings: Callable[..., None], lacking: str) -> None:
    settings(database_url=database_url)
    parts: dict[str, Any] = {"writer": True, "cleanup": True, "runtime": True}
    service = AgentService(**parts, triggers=broken if lacking == "triggers" else None)

    @asynccontextmanager
    async def own(_app: FastAPI) -> AsyncIterator[None]:
        if lacking == "own lifespan":
            raise LookupError
        yield

    other = await AgentRuntime.create() if lacking == "runtime" else None  # of another configuration
    with pytest.raises((LookupError, RuntimeStateError)):
        async with service.lifespan_with(own)(FastAPI()):
            pass
    if other is not None:
        assert AgentRuntime.get() is other
        await AgentRuntime.shutdown()

    with pytest.raises(RuntimeStateError):
        _ = service.database
    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


async def test_a_start_that_is_cancelled_anywhere_leaves_nothing(
    database_url: str, redis_url: str, settings: Callable[..., None]
) -> None:
    settings(database_url=database_url, redis_url=redis_url)
    service = AgentService(writer=True, cleanup=True, outbox=True, triggers=TriggerRunner, runtime=True)
    turns, ended = 0, False
    while not ended:
        starting = asyncio.create_task(run(service))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended = starting.done()
        starting.cancel()
        await asyncio.wait({starting})
        turns = turns + 1 + turns // 4

    assert turns > 20


async def test_the_applications_own_lifespan_runs_within_the_service() -> None:
    service, order = AgentService(database=False), []

    @asynccontextmanager
    async def own(_app: FastAPI) -> AsyncIterator[dict[str, int]]:
        order.append(service.started)
        yield {"answer": 42}
        order.append(service.started)

    async with service.lifespan_with(own)(FastAPI()) as state:
        assert state == {"answer": 42}

    assert order == [True, True]
    assert not service.started


async def test_two_services_share_the_settings_database_and_the_last_one_closes_it(
    database_url: str, settings: Callable[..., None]
) -> None:
    settings(database_url=database_url)
    first, second = AgentService(writer=True), AgentService(writer=True)
    async with first.lifespan(FastAPI()):
        async with second.lifespan(FastAPI()):
            shared = first.database is second.database is get_database()
        cache = await first.cache("users")
        await cache.set("ada", 1)
        async with get_session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        await first.writer.append(session.id, {"role": "user", "content": "still here"})

        assert (shared, await (await get_cache("users")).get("ada")) == (True, 1)
        database = first.database

    assert get_database() is not database
    await get_database().close()


async def test_services_with_databases_of_their_own_do_not_meet(sqlite_url: str, postgres_url: str) -> None:
    given = DatabaseManager(postgres_url)
    first, second = AgentService(database=sqlite_url, cleanup=True), AgentService(database=given, writer=True)
    async with first.lifespan(FastAPI()), second.lifespan(FastAPI()):
        async with first.database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        async with second.database.session() as db:
            assert await SessionRepository(db).get(session.id) is None

    async with given.session() as db:
        assert await SessionRepository(db).get(session.id) is None
    await given.close()


async def test_a_service_starts_while_redis_and_postgresql_are_down(
    settings: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="agent_service")
    settings(
        database_url=f"postgresql+asyncpg://ada:hunter2@127.0.0.1:{free_port()}/app",
        redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}/0",
    )
    service = AgentService(writer=True, cleanup=True, outbox=True, triggers=TriggerRunner, runtime=True)
    async with service.lifespan(FastAPI()):
        cache = await service.cache("users")
        await cache.set("ada", 1)
        value = await cache.get("ada")
        with pytest.raises(DatabaseUnavailableError):
            async with service.database.session() as db:
                await SessionRepository(db).create(Session(user_id="ada"))

    assert value == 1
    assert sum("the service starts although" in each.getMessage() for each in caplog.records) == 2
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("down", ["cache", "database"])
async def test_a_start_fails_while_something_is_down_if_it_was_told_to(
    settings: Callable[..., None], down: str, sqlite_url: str
) -> None:
    settings(database_url=sqlite_url)
    if down == "cache":
        settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    else:
        settings(database_url=f"postgresql+asyncpg://ada@127.0.0.1:{free_port()}/app")

    with pytest.raises(RuntimeStateError, match=f"does not start without its {down}"):
        await run(AgentService(writer=True, start_degraded=False))


async def test_a_runtime_that_the_application_made_is_used_and_left_to_it() -> None:
    config = GlobalSymphonyConfig(start_degraded=True)
    own = await AgentRuntime.create(config, redis=await get_redis_manager())
    service = AgentService(database=False, runtime=config)
    async with service.lifespan(FastAPI()):
        assert service.runtime is own
    lives = own.is_started
    await AgentRuntime.shutdown()

    assert lives


async def test_two_services_share_a_runtime_and_the_last_one_ends_it() -> None:
    first, second = (AgentService(database=False, runtime=True) for _ in range(2))
    async with first.lifespan(FastAPI()):
        async with second.lifespan(FastAPI()):
            shared = first.runtime is second.runtime
        lives = first.runtime.is_started
        runtime = first.runtime

    assert (shared, lives, runtime.is_started) == (True, True, False)


async def test_background_work_is_started_again_and_ends_with_the_service() -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise LookupError
        await asyncio.Event().wait()

    service = AgentService(database=False, background=[work])
    async with service.lifespan(FastAPI()):
        await until(lambda: starts == 2)


async def test_the_writer_stores_what_it_was_given_before_the_service_ends(
    database_url: str, settings: Callable[..., None]
) -> None:
    settings(database_url=database_url)
    service = AgentService(writer=True)
    async with service.lifespan(FastAPI()):
        async with service.database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        appending = [
            asyncio.create_task(service.writer.append(session.id, {"role": "user", "content": str(number)}))
            for number in range(100)
        ]
        await asyncio.sleep(0)
    stored = await asyncio.gather(*appending)

    assert sorted(message.seq for message in stored) == list(range(1, 101))


async def test_an_end_is_over_in_time_though_the_database_hangs(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:
        service = AgentService(database=proxy.url, writer=True, cleanup=True, shutdown_timeout=1.0)
        async with ticking() as ticks, service.lifespan(FastAPI()):
            async with service.database.session() as db:
                session = await SessionRepository(db).create(Session(user_id="ada"))
            proxy.stall()
            appending = asyncio.create_task(service.writer.append(session.id, {"role": "user", "content": "a"}))
            await asyncio.sleep(0.01)
            began = ticks.seconds
        took = ticks.seconds - began
        proxy.resume()
        with pytest.raises(DatabaseUnavailableError):
            await appending
        await until(lambda: len(asyncio.all_tasks()) <= 2 + len(proxy._pumps) * 3)

    assert took < 8  # an append alone may take 10, a statement 30


class TestClosing:
    """Steps in reverse order, within a time."""

    async def test_a_step_that_fails_or_hangs_is_told_and_the_others_run(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        order: list[str] = []
        closing = Closing()

        async def close(_seconds: float, name: str) -> None:
            order.append(name)
            if name == "hangs":
                await asyncio.Event().wait()
            if name == "fails":
                raise LookupError

        for name in ("last", "hangs", "fails", "first"):
            closing.add(name, partial(close, name=name))
        await closing.run(0.2)

        assert order == ["first", "fails", "hangs", "last"]
        assert [each.getMessage() for each in caplog.records] == [
            "fails could not be closed",
            "hangs was not closed in time",
        ]

    async def test_whoever_closes_may_be_cancelled_and_the_steps_run_all_the_same(self) -> None:
        begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        closing = Closing()

        async def slow(_seconds: float) -> None:
            begun.set()
            await go_on.wait()

        async def last(_seconds: float) -> None:
            done.set()

        closing.add("last", last)
        closing.add("slow", slow)
        running = asyncio.create_task(closing.run(60))
        await begun.wait()
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert done.is_set()


class TestSignals:
    """A request to stop is noticed at the signal."""

    @pytest.fixture(autouse=True)
    def caught(self) -> Iterator[list[int]]:
        """What a server's own handler of SIGTERM gets."""
        got: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda signum, _frame: got.append(signum))
        yield got
        signal.signal(signal.SIGTERM, before)

    async def test_every_service_and_the_server_are_told(self, caught: list[int]) -> None:
        first, second = AgentService(database=False), AgentService(database=False)
        async with first.lifespan(FastAPI()), second.lifespan(FastAPI()):
            signal.raise_signal(signal.SIGTERM)
            await first.stopping.wait()
            await second.stopping.wait()

        assert caught == [signal.SIGTERM]

    async def test_a_service_that_ended_is_told_nothing_and_passes_on(self, caught: list[int]) -> None:
        await run(AgentService(database=False))
        other = AgentService(database=False)
        async with other.lifespan(FastAPI()):
            first = signal.getsignal(signal.SIGTERM)
            wrapped: Any = first
            signal.signal(signal.SIGTERM, lambda signum, frame: wrapped(signum, frame))
        signal.raise_signal(signal.SIGTERM)

        assert caught == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, wrapped.previous)

    async def test_a_signal_that_is_ignored_or_ends_the_process_stays_as_it_is(self) -> None:
        for handler in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGTERM, handler)
            async with AgentService(database=False).lifespan(FastAPI()):
                assert signal.getsignal(signal.SIGTERM) is handler

    def test_a_service_runs_in_another_thread(self) -> None:
        outcome: list[bool] = []

        async def main() -> None:
            service = AgentService(database=False)
            async with service.lifespan(FastAPI()):
                outcome.append(service.started)

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()

        assert outcome == [True]


ONLY_A_CACHE = """
import asyncio, sys
from fastapi import FastAPI
from agent_service.integrations.fastapi import AgentService, cache, health_router

async def main():
    service = AgentService(database=False)
    app = FastAPI(lifespan=service.lifespan)
    service.install(app)
    app.include_router(health_router())
    cache("users")
    async with service.lifespan(app):
        await service.cache("users")

asyncio.run(main())
print(sorted({"sqlalchemy", "asyncpg", "alembic"} & sys.modules.keys()))
"""


def test_a_service_that_only_caches_imports_no_database() -> None:
    done = subprocess.run([sys.executable, "-c", ONLY_A_CACHE], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
