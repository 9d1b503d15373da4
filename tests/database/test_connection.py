"""get_session and the embedded default: commit, rollback, first use, many tasks and processes."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_database, get_session
from agent_service.infrastructure.database.connection import get_session as documented_path
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.forked import Forked


@pytest.fixture(autouse=True)
async def closed_afterwards() -> AsyncIterator[None]:
    yield
    await close_database()


async def test_the_embedded_default_needs_no_preparation(home: Path) -> None:
    async with get_session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async with documented_path() as db:
        found = await SessionRepository(db).get(session.id)

    assert found is not None
    assert (home / "agent_service.db").exists()
    assert str(get_database()) == "sqlite+aiosqlite:///./agent_service.db"


async def test_an_exception_rolls_back_and_passes_through() -> None:
    async def create_and_fail() -> None:
        async with get_session() as db:
            await SessionRepository(db).create(Session(user_id="ada"))
            raise LookupError("the handler's own")

    with pytest.raises(LookupError, match="the handler's own"):
        await create_and_fail()

    async with get_session() as db:
        assert await SessionRepository(db).get_user_sessions("ada") == []


async def test_a_commit_within_the_block_stands() -> None:
    async def create_commit_create_and_fail() -> None:
        async with get_session() as db:
            await SessionRepository(db).create(Session(user_id="ada", title="kept"))
            await db.commit()
            await SessionRepository(db).create(Session(user_id="ada", title="lost"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await create_commit_create_and_fail()

    async with get_session() as db:
        assert [each.title for each in await SessionRepository(db).get_user_sessions("ada")] == ["kept"]


async def test_a_cancelled_block_leaves_nothing_and_gives_its_connection_back() -> None:
    reached = asyncio.Event()

    async def create_and_wait() -> None:
        async with get_session() as db:
            await SessionRepository(db).create(Session(user_id="ada"))
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(create_and_wait())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with get_session() as db:
        assert await SessionRepository(db).get_user_sessions("ada") == []
        await SessionRepository(db).create(Session(user_id="ada"))


async def test_tasks_that_race_through_first_use_all_succeed() -> None:
    async def create(number: int) -> None:
        async with get_session() as db:
            await SessionRepository(db).create(Session(user_id="ada", title=str(number)))

    await asyncio.gather(*map(create, range(20)))

    async with get_session() as db:
        assert len(await SessionRepository(db).get_user_sessions("ada")) == 20


async def test_processes_that_race_through_first_use_all_succeed(home: Path) -> None:
    with ExitStack() as processes:
        racers = [processes.enter_context(await Forked.start("tests.database.first_use", str(home))) for _ in range(4)]
        for each in racers:
            each.stdin.close()
        assert await asyncio.gather(*(each.wait() for each in racers)) == [0] * 4

    async with get_session() as db:
        assert len(await SessionRepository(db).get_user_sessions("ada")) == 4


def test_every_loop_has_its_own_manager() -> None:
    async def use() -> DatabaseManager:
        async with get_session() as db:
            await SessionRepository(db).get_user_sessions("ada")
        manager = get_database()
        assert get_database() is manager
        await close_database()
        assert get_database() is not manager
        await close_database()
        return manager

    assert asyncio.run(use()) is not asyncio.run(use())


async def test_nested_sessions_read_beside_a_writer(database: DatabaseManager) -> None:
    async with database.session() as writing:
        session = await SessionRepository(writing).create(Session(user_id="ada"))
        async with database.session() as reading:
            unseen = await SessionRepository(reading).get(session.id)
        seen = await SessionRepository(writing).get(session.id)

    assert unseen is None
    assert seen is session


async def test_a_read_before_a_write_is_not_pinned_to_an_old_snapshot(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async with database.session() as first:
        await SessionRepository(first).get(session.id)
        async with database.session() as second:
            await SessionRepository(second).add_message_to_session(session.id, {"role": "user"})
        added = await SessionRepository(first).add_message_to_session(session.id, {"role": "user"})

    assert added.seq == 2


async def test_a_memory_database_is_one_database() -> None:
    database = DatabaseManager("sqlite+aiosqlite:///:memory:")

    async def create(number: int) -> None:
        async with database.session() as db:
            await SessionRepository(db).create(Session(user_id="ada", title=str(number)))

    await asyncio.gather(*map(create, range(5)))
    async with database.session() as db:
        found = await SessionRepository(db).get_user_sessions("ada")
    await database.close()

    assert len(found) == 5


async def test_sqlite_is_set_up_for_many_writers(tmp_path: Path) -> None:
    async with get_session() as db:
        pragmas = {
            name: (await db.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }

    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000}


async def test_a_writer_that_never_ends_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("agent_service.infrastructure.database.engine.creating.BUSY_TIMEOUT", 0.1)
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'busy.db'}")

    async def write() -> None:
        async with database.session() as db:
            await SessionRepository(db).create(Session(user_id="bob"))

    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        with pytest.raises(DatabaseUnavailableError, match="another task"):
            await write()
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError, match="no other process"):
        await write()
    other.execute("ROLLBACK")
    other.close()
    await write()
    await database.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://root:hunter2@host/db", "mysql"),
        ("postgresql://root:hunter2@host/db", "postgresql"),
        ("hunter2", "no scheme"),
        ("postgresql+asyncpg://u:hunter2@host:port/db", "no number from 1"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1/db?nonsense=1", "nonsense"),
    ],
)
def test_a_url_that_cannot_be_is_a_configuration_error_without_secrets(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        DatabaseManager(url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://u:hunter2@127.0.0.1:1/db",
        "postgresql+asyncpg://u:hunter2@no-such-host.invalid/db",
        "sqlite+aiosqlite:////no/such/folder/x.db",
    ],
)
async def test_an_unreachable_database_is_an_error_of_ours_without_secrets(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    reset_settings()

    async def use() -> None:
        async with get_session() as db:
            await db.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailableError, match="DATABASE_URL") as caught:
        await use()

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_a_replica_that_cannot_be_reached_is_reported_under_its_own_name(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URL", "postgresql+asyncpg://u:hunter2@127.0.0.1:1/db")
    reset_settings()

    async with get_session(readonly=True) as db:
        await db.execute(text("SELECT 1"))

    (told,) = [each.message for each in caplog.records if "replica" in each.message]
    assert "check DATABASE_REPLICA_URL" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "url", ["sqlite+aiosqlite:///file::memory:?uri=true", "sqlite+aiosqlite:///file:a?mode=memory&uri=true"]
)
async def test_a_file_uri_of_a_database_in_memory_is_one_database(url: str) -> None:
    database = DatabaseManager(url)
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)
    limit = database.get_metrics()["limit"]
    await database.close()

    assert found is not None
    assert limit == 1


def test_a_plain_sqlite_client_can_read_the_messages(home: Path) -> None:
    async def write() -> None:
        async with get_session() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(user_id="ada"))
            await repo.add_message_to_session(session.id, {"role": "user", "content": "żółw\x00"})
        await close_database()

    asyncio.run(write())
    connection = sqlite3.connect(home / "agent_service.db")
    statement = "SELECT seq, role, content, data FROM agent_service_session_messages"
    row: tuple[Any, ...] = connection.execute(statement).fetchone()
    connection.close()

    assert row[:3] == (1, "user", "żółw")
    assert json.loads(row[3]) == {"role": "user", "content": "żółw\x00"}
