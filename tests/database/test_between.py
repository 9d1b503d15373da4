"""What others commit in the middle of a call of ours: between two of its statements, or while it waits. PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.util import await_only

from agent_service.core.errors import DatabaseError, SessionNotFoundError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository, feed
from tests.database.held import somebody_waits
from tests.support.waiting import until

MESSAGE = {"role": "user", "content": "Hi", "token_count": 3}


@contextmanager
def after_each(database: DatabaseManager, wanted: str, act: Callable[[], Awaitable[Any]]) -> Iterator[None]:
    """Do something right after each statement that holds a text."""

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if wanted in statement:
            await_only(act())

    event.listen(database.engine.sync_engine, "after_cursor_execute", after)
    try:
        yield
    finally:
        event.remove(database.engine.sync_engine, "after_cursor_execute", after)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(postgres_url)
    yield manager
    await manager.close()


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    """The same database for somebody else."""
    manager = DatabaseManager(postgres_url)
    yield manager
    await manager.close()


@pytest.fixture
async def impatient(postgres_url: str) -> AsyncIterator[DatabaseManager]:
    """The same database for somebody who does not wait long for a row."""
    manager = DatabaseManager(postgres_url, statement_timeout=1)
    yield manager
    await manager.close()


async def new_session(database: DatabaseManager, messages: int = 0) -> UUID:
    async with database.session() as db:
        repo = SessionRepository(db)
        id_ = (await repo.create(Session(user_id="ada"))).id
        await repo.add_messages_to_session(id_, [MESSAGE] * messages)
    return id_


async def append(database: DatabaseManager, id_: UUID) -> None:
    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(id_, MESSAGE)


async def watched(database: DatabaseManager) -> Any:
    statement = "SELECT watched_until, watched_until - clock_timestamp() FROM agent_service_sessions"
    async with database.session() as db:
        return (await db.execute(text(statement))).one()


async def test_what_is_appended_right_after_a_look_is_notified(
    database: DatabaseManager, other: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is marked as watched before it is read, so nothing falls between the two until the next look."""
    monkeypatch.setattr(feed, "RENEWAL", 1000.0)
    id_ = await new_session(database)
    appended: list[UUID] = []

    async def once() -> None:
        if database.notifications.listening and not appended:
            appended.append(id_)
            await append(other, id_)

    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    with after_each(database, "session_messages", once):
        async with aclosing(subscription) as messages, asyncio.timeout(60):
            assert (await anext(messages)).seq == 1
    assert appended


async def test_a_mark_lasts_a_minute_and_is_renewed(database: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RENEWAL", 0.1)
    id_ = await new_session(database)
    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    async with aclosing(subscription) as messages:
        following = asyncio.ensure_future(anext(messages))

        async def is_marked() -> bool:
            return (await watched(database))[0] is not None

        await until(is_marked)
        first, left = await watched(database)
        assert 30 < left.total_seconds() <= 60

        async def is_renewed() -> bool:
            return bool((await watched(database))[0] > first)

        await until(is_renewed)
        following.cancel()
        await asyncio.wait([following])


async def test_a_session_that_was_removed_for_good_ends_its_subscriptions_at_the_next_look(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "RENEWAL", 0.1)
    id_ = await new_session(database)
    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    async with aclosing(subscription) as messages:
        following = asyncio.ensure_future(anext(messages))

        async def is_marked() -> bool:
            return (await watched(database))[0] is not None

        await until(is_marked)
        async with database.session() as db:
            await SessionRepository(db).delete(id_, hard=True)
        with pytest.raises(SessionNotFoundError):
            async with asyncio.timeout(30):
                await following


async def test_a_recount_repairs_nothing_that_an_append_made_look_wrong(
    database: DatabaseManager, impatient: DatabaseManager
) -> None:
    """It compares again while it holds the session: appends come between any two of its readings otherwise."""
    id_ = await new_session(database, 2)

    async def and_one_more() -> None:
        with suppress(DatabaseError):
            await append(impatient, id_)

    async with database.session() as db:
        with after_each(database, "total_messages", and_one_more):
            assert await SessionRepository(db).recount() == []
    async with database.session() as db:
        repo = SessionRepository(db)
        assert await repo.recount() == []
        session = await repo.get(id_)
        assert session is not None
        assert session.total_messages == len(await repo.get_messages(id_)) > 2


async def test_a_wrong_counter_is_repaired_by_what_is_there_when_the_session_is_held(
    database: DatabaseManager, other: DatabaseManager
) -> None:
    id_ = await new_session(database, 2)
    appended: list[UUID] = []
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_sessions SET total_messages = 77"))

    async def once() -> None:
        if not appended:
            appended.append(id_)
            await append(other, id_)

    async with database.session() as db:
        with after_each(database, "count(*)", once):
            (drift,) = await SessionRepository(db).recount()
    assert drift.total_messages == (78, 3)
    async with database.session() as db:
        assert await SessionRepository(db).recount() == []


@pytest.mark.parametrize("meanwhile", ["it pops", "it uses the client id again"])
async def test_a_fork_keeps_what_it_did_while_its_parent_was_removed(database: DatabaseManager, meanwhile: str) -> None:
    parent = await new_session(database, 1)
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(parent, MESSAGE, client_id="c")
        fork = (await repo.fork(parent, 2)).id

    async def remove() -> None:
        async with database.session() as db:
            await SessionRepository(db).delete(parent, hard=True)

    async with database.session() as db:
        repo = SessionRepository(db)
        if meanwhile == "it pops":
            await repo.pop_message(fork)
        else:
            await repo.add_message_to_session(fork, MESSAGE, client_id="c")
        removing = asyncio.create_task(remove())
        await somebody_waits(database)
    await removing

    async with database.session() as db:
        repo = SessionRepository(db)
        seqs = [each.seq for each in await repo.get_messages(fork)]
        assert seqs == ([1] if meanwhile == "it pops" else [1, 2, 3])
        assert await repo.recount() == []


async def test_of_two_appends_of_one_client_id_at_once_the_later_gives_everything_back(
    database: DatabaseManager,
) -> None:
    """Each looked for the other before it waited for the row."""
    id_ = await new_session(database)

    async def again() -> int:
        async with database.session() as db:
            return (await SessionRepository(db).add_message_to_session(id_, MESSAGE, client_id="c")).seq

    async with database.session() as db:
        repo = SessionRepository(db)
        first = await repo.add_message_to_session(id_, MESSAGE, client_id="c")
        second = asyncio.create_task(again())
        await somebody_waits(database)
    assert (first.seq, await second) == (1, 1)

    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.get(id_)
        assert session is not None
        assert (session.last_seq, session.total_messages, session.total_tokens) == (1, 1, 3)
        assert (await repo.add_message_to_session(id_, MESSAGE)).seq == 2


async def test_a_session_that_is_appended_to_is_not_completed_by_a_cleanup_that_waited_for_it(
    database: DatabaseManager,
) -> None:
    id_ = await new_session(database)
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_sessions SET expires_at = now() - interval '1 hour'"))

    async def clean_up() -> int:
        async with database.session() as db:
            return await SessionRepository(db).cleanup_expired_sessions()

    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(id_, MESSAGE)
        cleaning = asyncio.create_task(clean_up())
        await somebody_waits(database)
    assert await cleaning == 0


async def test_forks_of_one_session_do_not_wait_for_one_another(
    database: DatabaseManager, other: DatabaseManager
) -> None:
    id_ = await new_session(database, 2)
    async with database.session() as db:
        first = await SessionRepository(db).fork(id_, 1)
        async with other.session() as second_db:
            second = await SessionRepository(second_db).fork(id_, 2)

    assert (first.last_seq, second.last_seq) == (1, 2)


async def test_a_session_that_somebody_refers_to_can_be_watched(database: DatabaseManager) -> None:
    """A row of the application's own that refers to the session holds its key until it is committed."""
    id_ = await new_session(database)
    async with database.session() as db:
        await db.execute(text("SELECT id FROM agent_service_sessions FOR KEY SHARE"))
        async with database.session() as subscribing:
            subscription = SessionRepository(subscribing).subscribe(id_)
        async with aclosing(subscription) as messages:
            following = asyncio.ensure_future(anext(messages))

            async def is_marked() -> bool:
                return (await watched(database))[0] is not None

            await until(is_marked)
            following.cancel()
            await asyncio.wait([following])
