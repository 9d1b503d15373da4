"""Whatever is done with SQLite may be cancelled at any moment: no lock stays, no connection is lost, all or nothing."""

import asyncio
import gc
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import index_messages, purge, sweep
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.outbox import remove_rows, take_rows
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.outbox import invalidate_in
from tests.database.cancelled import cancelled_at_every_wait
from tests.database.histories import check, new_sessions

SAID = {"role": "user", "content": "hello", "token_count": 1}
ENDLESS = text("WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT max(n) FROM numbers")


@pytest.fixture(autouse=True)
def no_collector(little_garbage: None) -> Iterator[None]:
    """What only the garbage collector would end does not end."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.partition("///")[2])


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(sqlite_url, pool_size=2, max_overflow=0, pool_timeout=5)
    await manager.prepare()
    yield manager
    await manager.close()


def require_free(path: Path) -> None:
    """Write as another process would. What holds a lock here holds it for ever."""
    other = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        other.execute("BEGIN IMMEDIATE")
    finally:
        other.close()


Work = Callable[[DatabaseManager, UUID], Coroutine[Any, Any, Any]]


def repository(work: Callable[[SessionRepository, UUID], Awaitable[Any]]) -> Work:
    async def run(database: DatabaseManager, session_id: UUID) -> None:
        async with database.session() as db:
            await work(SessionRepository(db), session_id)

    return run


async def change_a_row(database: DatabaseManager, _: UUID) -> None:
    await KeyValueTable(database.session).change("key", lambda value: (value or "") + ".")


async def make_a_table(database: DatabaseManager, _: UUID) -> None:
    table = KeyValueTable(database.session, table="another")
    await table.write({"a": "1", "b": "2"})
    await table.remove(["a", "b"])
    async with database.session() as db:
        await db.execute(text("DROP TABLE another"))


async def take_from_the_outbox(database: DatabaseManager, _: UUID) -> None:
    async with database.session() as db:
        invalidate_in(db, keys=["a"])
    async with database.session() as db:
        await remove_rows(db, [id_ for id_, _ in await take_rows(db, 10)])


async def clean_up(database: DatabaseManager, session_id: UUID) -> None:
    async with database.session() as db:
        gone = await SessionRepository(db).create(Session(user_id="eve"))
        await SessionRepository(db).delete(gone.id)
    await sweep(database)
    await purge(database, timedelta(0))
    await index_messages(database)


async def stream(database: DatabaseManager, session_id: UUID) -> None:
    async with database.session() as db:
        rows = await db.stream(text("UPDATE agent_service_sessions SET title = 'read in pieces' RETURNING id"))
        async for _ in rows:
            pass
        await rows.close()


async def keep_a_context(database: DatabaseManager, _: UUID) -> None:
    contexts = SqlContextRepository(database.session)
    await contexts.set("ada", {"a": 1})
    await contexts.update("ada", {"b": 2})
    await contexts.delete("ada")


async def compare_the_schema(database: DatabaseManager, _: UUID) -> None:
    await database.check()


async def move_the_schema(database: DatabaseManager, _: UUID) -> None:
    await database.upgrade()


WORK: dict[str, Work] = {
    "create": repository(lambda repo, _: repo.create(Session(user_id="eve"))),
    "append": repository(lambda repo, key: repo.add_message_to_session(key, SAID)),
    "append_many": repository(lambda repo, key: repo.add_messages_to_session(key, [SAID] * 3)),
    "context": repository(lambda repo, key: repo.update_session_context(key, {"a": 1}, delete_keys=["b"])),
    "read": repository(lambda repo, key: repo.get_session_with_messages(key)),
    "search": repository(lambda repo, _: repo.search_messages("ada", "hello")),
    "fork": repository(lambda repo, key: repo.fork(key, 1)),
    "recount": repository(lambda repo, _: repo.recount()),
    "key-value": change_a_row,
    "new table": make_a_table,
    "outbox": take_from_the_outbox,
    "maintenance": clean_up,
    "stream": stream,
    "context repository": keep_a_context,
    "check": compare_the_schema,
    "migrations": move_the_schema,
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
async def test_work_that_is_cancelled_at_any_wait_holds_nothing(
    database: DatabaseManager, path: Path, work: Work
) -> None:
    (session_id,) = await new_sessions(database, 1)
    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(session_id, SAID, client_id="first")

    count = 0
    async for number in cancelled_at_every_wait(lambda: work(database, session_id)):
        require_free(path)
        while database.get_metrics()["in_use"]:
            await asyncio.sleep(0)
        count = number

    assert count > 0
    async with database.session() as db:
        assert await SessionRepository(db).recount() == []


async def test_appends_that_are_cancelled_all_at_once_hold_up_nobody(database: DatabaseManager, path: Path) -> None:
    (session_id,) = await new_sessions(database, 1)
    chance, stored = random.Random(11), {}

    async def append(client_id: str) -> None:
        async with database.session() as db:
            message = await SessionRepository(db).add_message_to_session(session_id, SAID, client_id=client_id)
        stored[client_id] = (session_id, message.seq)

    for turn in range(8):
        tasks = [asyncio.create_task(append(f"{turn}-{number}")) for number in range(12)]
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        require_free(path)
        await append(f"{turn}-afterwards")

    await check(database, [session_id], stored)


async def test_a_statement_that_would_never_end_is_interrupted(database: DatabaseManager) -> None:
    async def count() -> None:
        async with database.session() as db:
            await db.execute(ENDLESS)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(count(), 0.05)

    async with database.session() as db:
        assert (await db.execute(text("SELECT 1"))).scalar() == 1
    assert database.get_metrics()["in_use"] == 0


async def test_a_cancelled_statement_frees_the_lock_before_its_block_ends(
    database: DatabaseManager, path: Path
) -> None:
    """Whoever cancelled it may have much to do before it rolls back itself."""
    (session_id,) = await new_sessions(database, 1)
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(session_id, SAID)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(db.execute(ENDLESS), 0.05)

        await asyncio.to_thread(require_free, path)
        with pytest.raises(DatabaseError, match="was cancelled"):
            await repo.get(session_id)
        await db.rollback()
        kept = await repo.get_messages(session_id)

    assert kept == []


async def test_a_cancelled_stream_frees_the_lock_before_its_block_ends(database: DatabaseManager, path: Path) -> None:
    await new_sessions(database, 2)
    async with database.session() as db:
        rows = await db.stream(text("UPDATE agent_service_sessions SET title = 'read in pieces' RETURNING id"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(db.execute(ENDLESS), 0.05)

        await asyncio.to_thread(require_free, path)
        await rows.close()
        await db.rollback()


async def test_a_wait_for_another_process_ends_with_its_task(database: DatabaseManager, path: Path) -> None:
    (session_id,) = await new_sessions(database, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def append() -> Any:
        async with database.session() as db:
            return await SessionRepository(db).add_message_to_session(session_id, SAID)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(append(), 0.05)
    other.close()

    assert (await append()).seq == 1


async def test_a_session_goes_on_after_a_cancelled_statement_only_when_it_was_rolled_back(
    database: DatabaseManager, path: Path
) -> None:
    (session_id,) = await new_sessions(database, 1)
    refused: list[str] = []

    async def append_and_go_on() -> None:
        async with database.session() as db:
            repo = SessionRepository(db)
            await repo.add_message_to_session(session_id, SAID)
            with suppress(asyncio.CancelledError):
                await repo.add_message_to_session(session_id, SAID)
                return
            for action in (repo.get(session_id), repo.add_message_to_session(session_id, SAID), db.commit()):
                try:
                    await action
                except (DatabaseError, StatementError) as exc:
                    refused.append(str(exc))
            await db.rollback()
            require_free(path)
            await repo.add_message_to_session(session_id, SAID, client_id="after")

    attempts = 0
    async for _ in cancelled_at_every_wait(append_and_go_on):
        require_free(path)
        attempts += 1

    async with database.session() as db:
        repo = SessionRepository(db)
        assert [each.client_id for each in await repo.get_messages(session_id)] == ["after", None, None]
        assert await repo.recount() == []
    assert attempts > 3
    assert len(refused) >= 3
    assert all("was cancelled" in each for each in refused)


async def test_a_database_in_memory_outlives_cancelled_statements() -> None:
    database = DatabaseManager("sqlite+aiosqlite://")
    (session_id,) = await new_sessions(database, 1)
    append = WORK["append"]

    async for _ in cancelled_at_every_wait(lambda: append(database, session_id)):
        async with database.session() as db:
            assert await SessionRepository(db).get(session_id) is not None

    async with database.session() as db:
        repo = SessionRepository(db)
        assert await repo.get_messages(session_id) != []
        assert await repo.recount() == []
    await database.close()


async def test_a_writer_that_is_closed_at_any_wait_holds_nothing(database: DatabaseManager, path: Path) -> None:
    (session_id,) = await new_sessions(database, 1)

    async def append() -> None:
        async with SessionWriter(database) as writer:
            await asyncio.gather(*(writer.append(session_id, SAID) for _ in range(3)))

    async for _ in cancelled_at_every_wait(append):
        require_free(path)

    async with database.session() as db:
        assert await SessionRepository(db).recount() == []


class TestAnEngineOfTheCallersOwn:
    """Made by SQLAlchemy alone, on a file that is migrated."""

    @pytest.fixture
    async def engine(self, database: DatabaseManager, path: Path) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 10}, pool_size=2)
        yield engine
        await engine.dispose()

    async def test_sessions(self, engine: AsyncEngine, database: DatabaseManager, path: Path) -> None:
        (session_id,) = await new_sessions(database, 1)
        sessions = async_sessionmaker(engine, expire_on_commit=False)

        async def append() -> None:
            async with sessions() as db:
                await SessionRepository(db).add_message_to_session(session_id, SAID)
                await db.commit()

        async for _ in cancelled_at_every_wait(append):
            require_free(path)

        async with database.session() as db:
            assert await SessionRepository(db).recount() == []

    async def test_a_context_store_and_repository(self, engine: AsyncEngine, path: Path) -> None:
        store = DatabaseContextStore(engine=engine)
        contexts = SqlContextRepository(async_sessionmaker(engine))

        async def keep() -> None:
            await store.update("a", {"n": 1})
            await contexts.update("b", {"n": 1})

        async for _ in cancelled_at_every_wait(keep):
            require_free(path)

        assert await store.get("a") == {"n": 1}

    async def test_a_writer(self, engine: AsyncEngine, database: DatabaseManager, path: Path) -> None:
        (session_id,) = await new_sessions(database, 1)

        async def append() -> None:
            async with SessionWriter(engine) as writer:
                await writer.append(session_id, SAID)

        async for _ in cancelled_at_every_wait(append):
            require_free(path)

    async def test_a_wait_for_another_process(self, engine: AsyncEngine, path: Path) -> None:
        store = DatabaseContextStore(engine=engine)
        await store.set("a", {"n": 1})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.set("a", {"n": 2}), 0.05)
        other.close()
        require_free(path)

        assert await store.get("a") == {"n": 1}

    async def test_a_database_in_memory(self) -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        store = DatabaseContextStore(engine=engine, table="contexts")
        await store.set("a", {"n": 1})

        async for _ in cancelled_at_every_wait(lambda: store.update("b", {"n": 1})):
            assert await store.get("a") == {"n": 1}

        await engine.dispose()
