"""On SQLite an append is one visit to the connection's thread, and stores what SQLAlchemy would store."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Uuid, event
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as aiosqlite_dialect
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.types import TypeEngine

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.sqlite.connection import SqliteConnection
from agent_service.infrastructure.database.values.types import UtcDateTime, sqlite_moment, sqlite_uuid

HELLO = {"role": "user", "content": "hello"}


@pytest.fixture
async def manager(tmp_path: Path) -> Any:
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path}/visits.db")
    yield database
    await database.close()


def stored_form(kind: TypeEngine[Any], value: Any) -> Any:
    dialect = aiosqlite_dialect()
    process = kind.dialect_impl(dialect).bind_processor(dialect)
    return value if process is None else process(value)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(1, 1, 2, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_moment_for_the_driver_is_what_its_column_stores(moment: datetime) -> None:
    assert sqlite_moment(moment) == stored_form(UtcDateTime(), moment)


def test_a_uuid_for_the_driver_is_what_its_column_stores() -> None:
    id_ = uuid4()

    assert sqlite_uuid(id_) == stored_form(Uuid(), id_)


async def test_an_append_is_one_visit_once_its_transaction_writes(
    manager: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[object] = []
    visit = SqliteConnection.visit

    async def counted(self: SqliteConnection, work: Any, **options: Any) -> Any:
        visits.append(work)
        return await visit(self, work, **options)

    async with manager.session() as db:
        repository = SessionRepository(db)
        session = await repository.create(Session(user_id="ada"))
        monkeypatch.setattr(SqliteConnection, "visit", counted)

        stored = await repository.add_message_to_session(session.id, HELLO)
        one = len(visits)
        monkeypatch.undo()

    assert (stored.seq, one) == (1, 1)


async def test_an_engine_of_the_callers_own_sees_the_statements_of_an_append(manager: DatabaseManager) -> None:
    await manager.prepare()
    engine = create_async_engine(manager.engine.url)
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    async with AsyncSession(engine) as db:
        repository = SessionRepository(db)
        session = await repository.create(Session(user_id="ada"))
        sent.clear()

        await repository.add_message_to_session(session.id, HELLO)
        await db.commit()
    await engine.dispose()

    assert any("INSERT INTO agent_service_session_messages" in each for each in sent)
