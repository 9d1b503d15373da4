"""Whatever isolation the server, the role or the engine has as its default, nothing of ours fails because of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agent_service.context.database import DatabaseContextStore
from agent_service.context.session import SessionContextStore
from agent_service.core.errors import DatabaseError, SessionConflictError, TransactionConflictError
from agent_service.infrastructure.database.append import delivery
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors.retrying import Failure, classify
from agent_service.infrastructure.database.maintenance import purge, sweep
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer

LEVELS = ("repeatable read", "serializable")
MESSAGE = {"role": "user", "content": "hello"}
SHOW = text("SHOW transaction_isolation")


class Base(DeclarativeBase):
    """Of the application's own table."""


class Row(Base):
    """A context of the application's own."""

    __tablename__ = "application_context"

    context_key: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int | None]


@pytest.fixture(params=LEVELS)
async def strict_url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """A database whose default is stricter than what the statements need."""
    name = postgres_url.rpartition("/")[2]
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{request.param}'"))
    await database.close()
    return postgres_url


@pytest.fixture
async def strict(strict_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(strict_url, pool_size=20)
    yield manager
    await manager.close()


async def new_session(database: DatabaseManager, **values: Any) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="ada", **values))).id


async def append(database: Any, key: UUID, client_id: str | None = None) -> int:
    async with database.session() as db:
        return (await SessionRepository(db).add_message_to_session(key, MESSAGE, client_id=client_id)).seq


async def append_two(database: Any, key: UUID) -> list[int]:
    async with database.session() as db:
        return [each.seq for each in await SessionRepository(db).add_messages_to_session(key, [MESSAGE, MESSAGE])]


async def test_concurrent_appends_succeed_under_a_stricter_default_of_the_server(strict: DatabaseManager) -> None:
    key = await new_session(strict)

    one = await asyncio.gather(*(append(strict, key) for _ in range(20)))
    many = await asyncio.gather(*(append_two(strict, key) for _ in range(10)))

    assert sorted([*one, *(seq for pair in many for seq in pair)]) == list(range(1, 41))


@pytest.mark.parametrize("level", [None, "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_a_session_has_the_level_that_was_chosen_and_read_committed_by_default(
    strict_url: str, level: str | None
) -> None:
    database = DatabaseManager(strict_url, isolation_level=level)
    async with database.session() as db, database.session(read_committed=True) as own:
        levels = [await each.scalar(SHOW) for each in (db, own)]
    async with database.session(readonly=True) as db:
        levels.append(await db.scalar(SHOW))
    await database.close()

    chosen = (level or "READ COMMITTED").lower()
    assert levels == [chosen, "read committed", chosen]


async def test_the_level_costs_no_statement(strict: DatabaseManager) -> None:
    await new_session(strict)
    statements: list[str] = []
    event.listen(
        strict.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]), named=False
    )
    async with strict.session(read_committed=True) as db:
        await db.execute(text("SELECT 1"))

    assert statements == ["SELECT 1"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_appends_that_begin_a_stricter_transaction_are_begun_again(postgres_url: str, level: str) -> None:
    database = DatabaseManager(postgres_url, isolation_level=level, pool_size=20)
    key = await new_session(database)

    refused: list[str] = []

    async def work(number: int) -> Any:
        for _ in range(100):  # what the end of a SERIALIZABLE transaction refuses, is the caller's to repeat
            try:
                return await (append_two(database, key) if number % 2 else append(database, key))
            except TransactionConflictError as exc:
                refused.append(f"{level}: {exc}")
        raise AssertionError("never got through")

    numbers = await asyncio.gather(*(work(number) for number in range(20)))
    async with database.session() as db:
        session = await SessionRepository(db).get(key)
    await database.close()

    assert all(each.startswith("SERIALIZABLE: could not commit") for each in refused)
    assert session is not None
    assert session.last_seq == session.total_messages == 30
    flat = [seq for each in numbers for seq in (each if isinstance(each, list) else [each])]
    assert sorted(flat) == list(range(1, 31))


async def test_an_append_that_is_begun_again_still_says_whose_it_is(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, isolation_level="REPEATABLE READ", pool_size=20, row_security=True)
    await database.switch_row_security(on=True)
    key = await new_session(database)

    numbers = await asyncio.gather(*(append(database, key) for _ in range(20)))
    await database.close()

    assert sorted(numbers) == list(range(1, 21))


async def test_within_a_callers_stricter_transaction_the_conflict_is_the_callers(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url, isolation_level="REPEATABLE READ")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions.begin() as db:
        key = (await SessionRepository(db).create(Session(user_id="ada"))).id

    async with sessions() as db:
        repo = SessionRepository(db)
        assert await repo.get(key)
        async with sessions.begin() as other:
            await SessionRepository(other).add_message_to_session(key, MESSAGE)
        with pytest.raises(TransactionConflictError, match="begin the transaction again") as caught:
            await repo.add_message_to_session(key, MESSAGE)
    await engine.dispose()

    assert isinstance(caught.value, SessionConflictError)
    assert isinstance(caught.value, DatabaseError)


@pytest.mark.parametrize("of_whom", ["manager", "own engine"])
async def test_a_writer_needs_no_second_try(
    strict: DatabaseManager, strict_url: str, of_whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = create_async_engine(strict_url)
    key = await new_session(strict)
    failures: list[Any] = []

    async def write(number: int) -> list[int]:
        async with SessionWriter(strict if of_whom == "manager" else own) as writer:
            messages = [writer.append(key, MESSAGE, client_id=f"{number}-{turn}") for turn in range(10)]
            return [(await each).seq for each in messages]

    def noted(exc: Exception) -> Failure:
        failures.append(exc)
        return classify(exc)

    monkeypatch.setattr(delivery, "classify", noted)
    numbers = await asyncio.gather(*map(write, range(4)))
    await own.dispose()

    assert sorted(seq for each in numbers for seq in each) == list(range(1, 41))
    assert not failures


async def test_a_writer_of_one_tenant_needs_no_second_try_behind_row_security(strict_url: str) -> None:
    database = DatabaseManager(strict_url, row_security=True)
    await database.switch_row_security(on=True)
    key = await new_session(database)

    async def write(_: int) -> list[int]:
        async with SessionWriter(database) as writer:
            return [(await writer.append(key, MESSAGE)).seq for _ in range(10)]

    numbers = await asyncio.gather(*map(write, range(3)))
    await database.close()

    assert sorted(seq for each in numbers for seq in each) == list(range(1, 31))


async def test_behind_a_pgbouncer_that_takes_no_setting_appends_succeed(
    postgres_server: PostgresServer, strict_url: str
) -> None:
    with running_pgbouncer(postgres_server) as bouncer:
        database = DatabaseManager(by_way_of(bouncer, strict_url), pgbouncer=True, pool_size=10)
        key = await new_session(database)
        one = await asyncio.gather(*(append(database, key) for _ in range(10)))
        async with SessionWriter(database) as writer, SessionWriter(database) as other:
            many = await asyncio.gather(*((writer if n % 2 else other).append(key, MESSAGE) for n in range(20)))
        await database.close()

    assert sorted([*one, *(each.seq for each in many)]) == list(range(1, 31))


async def test_contexts_of_stores_lose_nothing(strict_url: str) -> None:
    strictest = create_async_engine(strict_url, isolation_level="SERIALIZABLE", pool_size=20)
    database = DatabaseManager(strict_url, isolation_level="SERIALIZABLE", pool_size=20)
    async with strictest.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    key = await new_session(database)
    sessions = async_sessionmaker(strictest)
    repository = SqlContextRepository(sessions, model=Row)
    contexts = SessionContextStore(database.session)
    made = [DatabaseContextStore(engine=strictest, table="made_by_many") for _ in range(8)]

    await asyncio.gather(*(repository.update("one", {"amount": number}) for number in range(15)))
    await asyncio.gather(*(repository.delete("one") for _ in range(5)))
    await asyncio.gather(*(contexts.update(str(key), {f"field{number}": number}) for number in range(15)))
    await asyncio.gather(*(store.update("a", {f"field{number}": number}) for number, store in enumerate(made)))
    context, shared = await contexts.get(str(key)), await made[0].get("a")
    await strictest.dispose()
    await database.close()

    assert context == {f"field{number}": number for number in range(15)}
    assert shared == {f"field{number}": number for number in range(8)}


async def test_cleanup_and_appends_do_not_meet(strict_url: str) -> None:
    database = DatabaseManager(strict_url, isolation_level="SERIALIZABLE", pool_size=20)
    keys = [await new_session(database) for _ in range(30)]
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_sessions SET expires_at = now() - interval '1 second'"))
    async with database.session() as db:
        repo = SessionRepository(db)
        for key in keys[20:]:
            await repo.delete(key)

    async def work(job: Callable[[], Awaitable[int]]) -> int:
        return await job()

    jobs: list[Callable[[], Awaitable[int]]] = [lambda: sweep(database), lambda: purge(database, timedelta())] * 3
    done = await asyncio.gather(*map(work, jobs))
    await database.close()

    assert sum(done[::2]) == 20
    assert sum(done[1::2]) == 10


async def test_migrations_of_many_processes_take_turns(strict_url: str) -> None:
    managers = [DatabaseManager(strict_url) for _ in range(4)]
    await managers[0].downgrade("base")
    await asyncio.gather(*(each.upgrade() for each in managers))
    states = [await each.check() for each in managers]
    for each in managers:
        await each.close()

    assert len({str(state) for state in states}) == 1


async def test_a_subscription_goes_on_while_others_append(strict_url: str) -> None:
    database = DatabaseManager(strict_url, isolation_level="SERIALIZABLE", pool_size=20)
    key = await new_session(database)
    seen: list[int] = []

    async def follow() -> None:
        async with database.session() as db:
            async for message in SessionRepository(db).subscribe(key):
                seen.append(message.seq)
                if message.seq == 60:
                    return

    following = asyncio.create_task(follow())
    async with SessionWriter(database) as writer:
        for _ in range(60):
            await writer.append(key, MESSAGE)
    async with asyncio.timeout(60):
        await following
    await database.close()

    assert seen == list(range(1, 61))


def test_sessions_of_sqlite_have_one_level(tmp_path: Any) -> None:
    async def run() -> Any:
        database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", isolation_level="SERIALIZABLE")
        key = await new_session(database)
        numbers = await asyncio.gather(*(append(database, key) for _ in range(5)))
        async with database.session(read_committed=True) as db:
            assert isinstance(db, AsyncSession)
        await database.close()
        return numbers

    assert sorted(asyncio.run(run())) == [1, 2, 3, 4, 5]
