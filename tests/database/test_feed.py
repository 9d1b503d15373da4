"""Following a session: every message, in order, through outages; on both engines."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, NoReturn
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from agent_service.core.backoff import Backoff
from agent_service.core.errors import DatabaseUnavailableError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.catalog import channel_of
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.postgres.notifications import Notifications
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.servers.proxy import TcpProxy
from tests.support.waiting import until

PATIENCE = 60.0
Feed = AsyncGenerator[SessionMessage, None]
LISTENERS = """
    FROM pg_stat_activity WHERE datname = current_database() AND (starts_with(query, 'LISTEN') OR query = 'SELECT 1')
"""
"""By the last statement, which may be the heartbeat."""


async def start(database: DatabaseManager, tenant: str = "") -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db, tenant).create(Session(user_id="ada"))).id


async def say(database: DatabaseManager, session_id: UUID, *contents: str) -> None:
    for content in contents:
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": content})


@asynccontextmanager
async def following(
    database: DatabaseManager, session_id: UUID, after_seq: int = 0, *, end: asyncio.Event | None = None
) -> AsyncIterator[Feed]:
    async with database.session() as db:
        feed = SessionRepository(db).subscribe(session_id, after_seq=after_seq, until=end)
    async with aclosing(feed):
        yield feed


async def take(feed: Feed, count: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return [(await anext(feed)).content for _ in range(count)]


async def listening(database: DatabaseManager) -> None:
    async def marked() -> bool:
        return database.notifications.listening and await scalar(
            database, "SELECT count(*) > 0 FROM agent_service_sessions WHERE watched_until > now()"
        )

    if not database.embedded:
        await until(marked)


async def scalar(database: DatabaseManager, query: str) -> Any:
    async with database.session() as db:
        return (await db.execute(text(query))).scalar_one()


async def test_history_comes_first_and_then_what_is_said(database: DatabaseManager) -> None:
    session_id = await start(database)
    await say(database, session_id, "a", "b", "c")

    async with following(database, session_id, after_seq=1) as feed:
        before = await take(feed, 2)
        waiting = asyncio.create_task(take(feed, 2))
        await say(database, session_id, "d", "e")

        assert (before, await waiting) == (["b", "c"], ["d", "e"])


async def test_a_long_history_comes_whole(database: DatabaseManager) -> None:
    session_id = await start(database)
    contents = [str(number) for number in range(450)]
    async with database.session() as db:
        repo = SessionRepository(db)
        for content in contents:
            await repo.add_message_to_session(session_id, {"role": "user", "content": content})

    async with following(database, session_id) as feed:
        assert await take(feed, 450) == contents


async def test_sixteen_writers_and_four_subscribers_agree(database: DatabaseManager) -> None:
    session_id = await start(database)

    async def follow(after: int) -> list[int]:
        async with following(database, session_id, after) as feed, asyncio.timeout(PATIENCE):
            return [(await anext(feed)).seq for _ in range(160 - after)]

    subscribers = [asyncio.create_task(follow(after)) for after in (0, 0, 5, 50)]
    await asyncio.gather(*(say(database, session_id, *"0123456789") for _ in range(16)))

    assert [await each for each in subscribers] == [list(range(after + 1, 161)) for after in (0, 0, 5, 50)]


async def test_what_is_rolled_back_never_comes(database: DatabaseManager) -> None:
    session_id = await start(database)

    async def say_and_fail() -> None:
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": "unsaid"})
            raise LookupError

    async with following(database, session_id) as feed:
        waiting = asyncio.create_task(take(feed, 1))
        await listening(database)
        with pytest.raises(LookupError):
            await say_and_fail()
        await say(database, session_id, "said")

        assert await waiting == ["said"]


async def test_a_subscription_holds_no_connection_while_it_waits(database_url: str) -> None:
    database = DatabaseManager(database_url, pool_size=1, max_overflow=0)
    await database.prepare()
    session_id = await start(database)
    async with following(database, session_id) as feed:
        waiting = asyncio.create_task(take(feed, 1))
        await listening(database)
        await say(database, session_id, "through the only connection")

        assert await waiting == ["through the only connection"]
    await database.close()


async def test_the_writer_of_an_open_transaction_can_subscribe(database: DatabaseManager) -> None:
    session_id = await start(database)
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(session_id, {"role": "user", "content": "mine"})
        async with aclosing(repo.subscribe(session_id)) as feed:
            waiting = asyncio.create_task(take(feed, 1))
            await asyncio.sleep(0.1)
            early = waiting.done()
            await db.commit()

            assert (early, await waiting) == (False, ["mine"])


async def test_a_fork_is_followed_with_what_it_inherited(database: DatabaseManager) -> None:
    session_id = await start(database)
    await say(database, session_id, "a", "b", "c")
    async with database.session() as db:
        fork = await SessionRepository(db).fork(session_id, 2)

    async with following(database, fork.id) as feed:
        inherited = await take(feed, 2)
        waiting = asyncio.create_task(take(feed, 1))
        await say(database, session_id, "not here")
        await say(database, fork.id, "here")

        assert (inherited, await waiting) == (["a", "b"], ["here"])


async def test_a_deleted_session_ends_its_subscriptions(database: DatabaseManager) -> None:
    session_id = await start(database)
    async with following(database, session_id) as feed:
        waiting = asyncio.create_task(take(feed, 1))
        await listening(database)
        async with database.session() as db:
            await SessionRepository(db).delete(session_id)

        with pytest.raises(SessionNotFoundError):
            await waiting


async def test_a_session_of_another_tenant_cannot_be_followed(database: DatabaseManager) -> None:
    session_id = await start(database, "other")

    async with following(database, session_id) as feed:
        with pytest.raises(SessionNotFoundError):
            await take(feed, 1)


async def test_closing_the_database_ends_a_subscription_with_an_error(database: DatabaseManager) -> None:
    session_id = await start(database)
    async with following(database, session_id) as feed:
        waiting = asyncio.create_task(take(feed, 1))
        await listening(database)
        await database.close()

        with pytest.raises(DatabaseUnavailableError, match="was closed"):
            await waiting


@pytest.mark.parametrize("after", [-1, True, "1", 2**63, None])
async def test_a_number_that_cannot_be_is_refused_at_once(repo: SessionRepository, after: Any) -> None:
    with pytest.raises(SessionValueError, match="after_seq"):
        repo.subscribe(uuid4(), after_seq=after)


async def test_sessions_that_cannot_outlive_the_transaction_are_refused(database: DatabaseManager) -> None:
    async with database.session(readonly=True) as db:
        with pytest.raises(SessionValueError, match="read-only"):
            SessionRepository(db).subscribe(uuid4())
    async with async_sessionmaker(database.engine, class_=AsyncSession)() as db:
        with pytest.raises(SessionValueError, match="get_session"):
            SessionRepository(db).subscribe(uuid4())


async def rest(feed: Feed) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return [message.content async for message in feed]


async def test_an_event_ends_a_subscription_that_waits(database: DatabaseManager) -> None:
    session_id, end = await start(database), asyncio.Event()
    await say(database, session_id, "a")
    async with following(database, session_id, end=end) as feed:
        before = await take(feed, 1)
        waiting = asyncio.create_task(rest(feed))
        await listening(database)
        end.set()

        assert (before, await waiting) == (["a"], [])


async def test_an_event_ends_a_subscription_between_two_messages_and_another_goes_on(database: DatabaseManager) -> None:
    session_id, end = await start(database), asyncio.Event()
    await say(database, session_id, *"abcd")
    async with following(database, session_id, end=end) as feed:
        before = await take(feed, 2)
        end.set()
        after_the_event = await rest(feed)
    async with following(database, session_id, 2) as feed:
        assert (before, after_the_event, await take(feed, 2)) == (["a", "b"], [], ["c", "d"])


async def test_a_subscription_whose_event_is_set_already_is_empty(database: DatabaseManager) -> None:
    session_id, end = await start(database), asyncio.Event()
    await say(database, session_id, "a")
    end.set()
    async with following(database, session_id, end=end) as feed:
        assert await rest(feed) == []


async def test_an_event_ends_a_subscription_that_reads_and_gets_no_answer(postgres_url: str) -> None:
    direct = DatabaseManager(postgres_url)
    session_id, end = await start(direct), asyncio.Event()
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url, pool_size=1, max_overflow=0)
        async with following(database, session_id, end=end) as feed:
            await say(direct, session_id, "a")
            before = await take(feed, 1)
            waiting = asyncio.create_task(rest(feed))
            proxy.stall()
            await until(lambda: database.get_metrics()["in_use"])
            end.set()

            assert (before, await waiting) == (["a"], [])
        await database.close()
    await direct.close()


async def test_a_cancelled_consumer_is_not_taken_for_one_whose_event_is_set(database: DatabaseManager) -> None:
    session_id, end = await start(database), asyncio.Event()
    async with following(database, session_id, end=end) as feed:
        waiting = asyncio.create_task(rest(feed))
        await listening(database)
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize(
    "end", ["soon", True, asyncio.Event, threading.Event()], ids=["text", "bool", "class", "thread"]
)
async def test_what_is_no_event_cannot_end_a_subscription(repo: SessionRepository, end: Any) -> None:
    with pytest.raises(SessionValueError, match=r"until must be an asyncio\.Event"):
        repo.subscribe(uuid4(), until=end)


class TestNotifications:
    """What only PostgreSQL has: a connection that listens."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    async def test_one_connection_serves_all_subscriptions_and_ends_with_the_last(
        self, database: DatabaseManager
    ) -> None:
        ids = [await start(database) for _ in range(5)]
        before = await scalar(database, f"SELECT count(*) {LISTENERS}")

        async def follow(session_id: UUID) -> list[Any]:
            async with following(database, session_id) as feed:
                return await take(feed, 1)

        subscribers = [asyncio.create_task(follow(each)) for each in ids]
        await listening(database)
        during = await scalar(database, f"SELECT count(*) {LISTENERS}")
        for each in ids:
            await say(database, each, str(each))

        assert [await each for each in subscribers] == [[str(each)] for each in ids]
        assert (before, during, database.notifications.listening) == (0, 1, False)

    async def test_a_notification_does_not_wait_for_the_next_look(
        self, database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for pause in ("SHORTEST_POLL", "LONGEST_POLL"):
            monkeypatch.setattr(f"agent_service.infrastructure.database.repositories.feed.{pause}", 60.0)
        session_id = await start(database)
        loop = asyncio.get_running_loop()
        async with following(database, session_id) as feed:
            waiting = asyncio.create_task(anext(feed))
            await listening(database)
            started = loop.time()
            await say(database, session_id, "now")
            await waiting

            assert loop.time() - started < 30

    async def test_a_session_that_nobody_watches_notifies_nobody(self, database: DatabaseManager) -> None:
        watched, ignored = await start(database), await start(database)
        heard: list[object] = []
        async with following(database, watched) as feed, database.engine.connect() as connection:
            waiting = asyncio.create_task(take(feed, 1))
            await listening(database)
            channel = await connection.run_sync(lambda sync: channel_of(sync, names_of(sync)))
            await connection.rollback()
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.add_listener(channel, lambda *each: heard.append(each[-1]))
            await say(database, ignored, "unheard")
            await say(database, watched, "heard")
            await waiting
            await driver.execute("SELECT 1")
            await driver.remove_listener(channel, heard.append)

        assert heard == [str(watched)]

    async def test_nothing_is_missed_while_its_connection_is_killed_again_and_again(
        self, database: DatabaseManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        session_id = await start(database)
        caplog.set_level(logging.INFO, logger="agent_service")
        async with following(database, session_id) as feed:
            waiting = asyncio.create_task(take(feed, 60))
            for number in range(60):
                if number % 20 == 10:
                    await listening(database)
                    assert await scalar(database, f"SELECT count(pg_terminate_backend(pid)) {LISTENERS}") == 1
                await say(database, session_id, str(number))

            assert await waiting == [str(number) for number in range(60)]

    async def test_a_lost_connection_that_is_replaced_at_once_is_no_outage(
        self, database: DatabaseManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        session_id = await start(database)
        caplog.set_level(logging.INFO)
        async with following(database, session_id) as feed:
            waiting = asyncio.create_task(take(feed, 1))
            await listening(database)
            lost = await scalar(database, f"SELECT pid {LISTENERS}")
            await scalar(database, f"SELECT pg_terminate_backend({lost})")
            await until(lambda: scalar(database, f"SELECT count(*) = 1 {LISTENERS} AND pid <> {lost}"))
            await say(database, session_id, "after")
            await waiting

        assert caplog.messages == []

    async def test_an_outage_of_the_database_is_waited_out(self, postgres_url: str) -> None:
        direct = DatabaseManager(postgres_url)
        session_id = await start(direct)
        async with TcpProxy(postgres_url) as proxy:
            database = DatabaseManager(proxy.url)
            async with following(database, session_id) as feed:
                await say(direct, session_id, "before")
                before = await take(feed, 1)
                waiting = asyncio.create_task(take(feed, 2))
                for number in range(2):
                    proxy.drop()
                    await say(direct, session_id, str(number))
                after = await waiting
            await database.close()
        await direct.close()

        assert (before, after) == (["before"], ["0", "1"])

    async def test_a_connection_that_falls_silent_is_noticed_and_replaced(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent_service.infrastructure.database.postgres.notifications.HEARTBEAT", 0.1)
        monkeypatch.setattr("agent_service.infrastructure.database.postgres.notifications._ANSWER_TIME", 0.5)
        async with TcpProxy(postgres_url) as proxy:
            database = DatabaseManager(proxy.url)

            async def hears(expected: bool) -> bool:
                return database.notifications.listening is expected

            async with database.notifications.bell(uuid4()):
                await until(lambda: hears(True))
                release = proxy.hold()  # a network that takes what is sent, and brings nothing back
                await until(lambda: hears(False))
                await until(lambda: hears(True))
                release()
            await database.close()

    async def test_a_connection_that_cannot_be_made_is_tried_ever_more_rarely(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agent_service.infrastructure.database.postgres.notifications._PAUSES", Backoff(0.01, 5.0))
        loop = asyncio.get_running_loop()
        async with TcpProxy("postgresql+asyncpg://nobody@127.0.0.1:1/nothing") as proxy:
            database = DatabaseManager(proxy.url)
            async with database.notifications.bell(uuid4()):
                started = loop.time()
                while proxy.accepted < 8:  # one of them asks whether the database is away
                    await asyncio.sleep(0.002)
                took = loop.time() - started
            await database.close()

        assert took > 0.5 * 0.01 * (2 + 4 + 8 + 16 + 32 + 64)

    async def test_it_is_tried_again_however_often_it_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """2 ** 1024 is no float: after an hour without the database nothing was ever notified again."""
        monkeypatch.setattr("agent_service.infrastructure.database.postgres.notifications._PAUSES", Backoff(0.0, 0.0))
        tried = 0

        class Unreachable:
            def connect(self) -> NoReturn:
                nonlocal tried
                tried += 1
                raise ConnectionRefusedError

            async def dispose(self) -> None:
                pass

        notifications = Notifications(Unreachable, _nothing_is_served)  # type: ignore[arg-type]
        async with notifications.bell(uuid4()), asyncio.timeout(60):
            while tried < 1200:
                await asyncio.sleep(0)
        await notifications.close()

    async def test_an_outage_of_the_database_is_told_once_and_so_is_its_end(
        self, postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        direct = DatabaseManager(postgres_url)
        session_id = await start(direct)
        async with TcpProxy(postgres_url) as proxy:
            database = DatabaseManager(proxy.url)
            async with following(database, session_id) as feed:
                for content in ("before", "between"):
                    await say(direct, session_id, content)
                    assert await take(feed, 1) == [content]
                assert caplog.messages == []
                waiting = asyncio.create_task(take(feed, 1))
                proxy.lead_to("postgresql://127.0.0.1:1")
                await until(lambda: _logged(caplog, "does not serve"))
                refused = proxy.accepted
                while proxy.accepted < refused + 3:
                    await asyncio.sleep(0.01)
                proxy.lead_to(postgres_url)
                await say(direct, session_id, "after")
                assert await waiting == ["after"]
                await until(lambda: _logged(caplog, "serves again"))
            await database.close()
        await direct.close()

        assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]

    async def test_a_database_that_is_down_from_the_start_is_an_error(self) -> None:
        database = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
        async with following(database, uuid4()) as feed:
            with pytest.raises(DatabaseUnavailableError):
                await take(feed, 1)
        await database.close()


async def _nothing_is_served() -> bool:
    return False


async def _logged(caplog: pytest.LogCaptureFixture, part: str) -> bool:
    return any(part in record.message for record in caplog.records)


async def test_listening_that_fails_while_the_database_serves_is_told_once(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with TcpProxy(postgres_url) as proxy:
        elsewhere = DatabaseManager(proxy.url)
        proxy.lead_to("postgresql://127.0.0.1:1")
        async with AsyncExitStack() as stack:
            database = DatabaseManager(postgres_url)
            stack.push_async_callback(database.close)
            stack.push_async_callback(elsewhere.close)
            session_id = await start(database)
            database.notifications._open_engine = elsewhere._patient_engine
            feed = await stack.enter_async_context(following(database, session_id))
            waiting = asyncio.create_task(take(feed, 1))
            await until(lambda: _logged(caplog, "poll for new messages"))
            tried = proxy.accepted
            await until(lambda: proxy.accepted > tried + 1)
            proxy.lead_to(postgres_url)
            await until(lambda: _logged(caplog, "notified of new messages again"))
            await say(database, session_id, "after")
            assert await waiting == ["after"]

    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]
