"""Sessions of a caller's own engine: everything works in them as in get_session(), or is refused by name."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from agent_service.context.session import SessionContextStore
from agent_service.core.errors import ContextStoreError, SessionValueError
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository


@pytest.fixture
async def url(database_url: str) -> str:
    """A migrated database of each engine in turn."""
    await migrate(database_url)
    return database_url


@pytest.fixture
async def file(tmp_path: Path) -> str:
    """A migrated SQLite file."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"
    await migrate(url)
    return url


async def migrate(url: str) -> None:
    database = DatabaseManager(url)
    await database.prepare()
    await database.close()


def recommended(url: str) -> AsyncEngine:
    """An engine with the events that SQLAlchemy's documentation recommends for SQLite."""
    engine = create_async_engine(url)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


ENGINES: dict[str, Callable[[str], AsyncEngine]] = {
    "plain": create_async_engine,
    "without a pool": lambda url: create_async_engine(url, poolclass=NullPool),
    "one connection": lambda url: create_async_engine(url, poolclass=StaticPool),
    "with options": lambda url: create_async_engine(url).execution_options(mine=1),
    "driver autocommit": lambda url: create_async_engine(url, connect_args={"isolation_level": None}),
    "autocommit": lambda url: create_async_engine(url, isolation_level="AUTOCOMMIT"),
    "autocommit by option": lambda url: create_async_engine(url).execution_options(isolation_level="AUTOCOMMIT"),
    "recommended events": recommended,
    "of a pool that is warm": create_async_engine,
}


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, file: str) -> AsyncIterator[AsyncEngine]:
    engine = ENGINES[request.param](file)
    if "warm" in request.param:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    yield engine
    await engine.dispose()


async def converse(repo: SessionRepository) -> Session:
    """Call what stands on functions, savepoints and cascades of the database."""
    session = await repo.create(Session(user_id="ada", title="ŻÓŁW", context={"a": {"b": 1}}))
    await repo.add_message_to_session(session.id, {"role": "user", "content": "Zażółć GĘŚLĄ jaźń"}, client_id="1")
    await repo.add_messages_to_session(session.id, [{"role": "user", "content": "second"}], client_ids=["2"])
    await repo.update_session_context(session.id, {"c": "ü"})
    await repo.update_session_context(session.id, {"a": {"d": 2}}, deep=True)
    await repo.set_session_context_path(session.id, "a.e", 3)
    await repo.increment_session_context(session.id, "n", 2)
    session.title = "Żółwie"
    await repo.update(session)
    return session


async def test_everything_works_as_in_a_session_of_ours(engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions() as db:
        session = await converse(SessionRepository(db))
        await db.commit()

    async with sessions() as db:
        repo = SessionRepository(db)
        found = await repo.get(session.id)
        titles = [each.id for each in await repo.search_sessions("ada", "żÓŁWIE")]
        short = [each.id for each in await repo.search_sessions("ada", "żó")]
        hits = [each.seq for each in await repo.search_messages("ada", "gęślą")]
        short_hits = [each.seq for each in await repo.search_messages("ada", "Ęś")]
        fork = await repo.fork(session.id, 1)
        await repo.delete(session.id, hard=True)
        kept = [each.seq for each in await repo.get_messages(fork.id)]
        lines = [line async for line in repo.export_user("ada")]
        erased = await repo.erase_user("ada")
        left = (await db.execute(text("SELECT count(*) FROM agent_service_session_messages"))).scalar_one()
        unfound = await repo.search_messages("ada", "gęślą")
        imported = await repo.import_user(lines)
        await repo.delete(fork.id)
        purged = await repo.purge_deleted(timedelta(0))
        await db.commit()

    assert found is not None
    assert found.context == {"a": {"b": 1, "d": 2, "e": 3}, "c": "ü", "n": 2}
    assert (titles, short, hits, short_hits) == ([session.id], [session.id], [1], [1])
    assert (kept, erased, left, unfound, imported.sessions, purged) == ([1], 1, 0, [], 1, 1)


@pytest.mark.parametrize("read_before", [False, True])
async def test_what_is_rolled_back_never_was(engine: AsyncEngine, read_before: bool) -> None:
    if engine.sync_engine.pool.__class__ is StaticPool:
        pytest.skip("one connection is one transaction")
    sessions = async_sessionmaker(engine)
    async with sessions() as db:
        if read_before:
            await db.execute(text("SELECT * FROM agent_service_sessions"))
        await converse(SessionRepository(db))
        await db.rollback()

    async with sessions() as db:
        left = await SessionRepository(db).get_user_sessions("ada")

    assert left == []


async def test_nothing_is_seen_before_the_commit(engine: AsyncEngine, tmp_path: Path) -> None:
    def stored() -> int:
        other = sqlite3.connect(tmp_path / "own.db")
        try:
            return int(other.execute("SELECT count(*) FROM agent_service_sessions").fetchone()[0])
        finally:
            other.close()

    async with async_sessionmaker(engine)() as db:
        await converse(SessionRepository(db))
        before = stored()
        await db.commit()

    assert (before, stored()) == (0, 1)


async def test_engines_that_share_a_pool_are_each_given_what_is_needed(file: str) -> None:
    base = create_async_engine(file, pool_size=2)
    contexts = []
    for engine in (base.execution_options(mine=1), base, base.execution_options(mine=2)):
        async with async_sessionmaker(engine, expire_on_commit=False)() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(user_id="ada"))
            contexts.append(await repo.update_session_context(session.id, {"a": 1}))
            await db.rollback()
    async with async_sessionmaker(base)() as db:
        left = await SessionRepository(db).get_user_sessions("ada")
    await base.dispose()

    assert (contexts, left) == ([{"a": 1}] * 3, [])


async def test_writers_at_the_same_time_lose_nothing(file: str) -> None:
    engine = create_async_engine(file, connect_args={"timeout": 30})
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions.begin() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def write(number: int) -> None:
        for _ in range(5):
            async with sessions.begin() as db:
                repo = SessionRepository(db)
                await repo.add_message_to_session(session.id, {"role": "user", "content": str(number)})
                await repo.set_session_context_path(session.id, str(number), number)
                await repo.increment_session_context(session.id, "n")

    await asyncio.gather(*(write(each) for each in range(4)))
    async with sessions() as db:
        found = await SessionRepository(db).get(session.id)
    await engine.dispose()

    assert found is not None
    assert (found.total_messages, found.context) == (20, {"n": 20, "0": 0, "1": 1, "2": 2, "3": 3})


@asynccontextmanager
async def bound_to_a_connection(url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(url)
    async with engine.connect() as connection, AsyncSession(connection, expire_on_commit=False) as db:
        yield db
    await engine.dispose()


@asynccontextmanager
async def within_a_test_transaction(url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        mode: Any = "create_savepoint"
        async with AsyncSession(connection, expire_on_commit=False, join_transaction_mode=mode) as db:
            yield db
    await engine.dispose()


@asynccontextmanager
async def scoped(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url)
    registry = async_scoped_session(async_sessionmaker(engine, expire_on_commit=False), scopefunc=asyncio.current_task)
    yield registry
    await registry.remove()
    await engine.dispose()


@asynccontextmanager
async def of_another_class(url: str) -> AsyncIterator[AsyncSession]:
    class Mine(AsyncSession):
        pass

    engine = create_async_engine(url)
    async with async_sessionmaker(engine, class_=Mine, expire_on_commit=False)() as db:
        yield db
    await engine.dispose()


@pytest.mark.parametrize("opened", [bound_to_a_connection, within_a_test_transaction, scoped, of_another_class])
async def test_sessions_of_every_kind_work(opened: Any, url: str) -> None:
    async with opened(url) as db:
        repo = SessionRepository(db)
        session = await converse(repo)
        await db.commit()
        hits = [each.seq for each in await repo.search_messages("ada", "gęślą")]
        await repo.delete(session.id, hard=True)
        left = (await db.execute(text("SELECT count(*) FROM agent_service_session_messages"))).scalar_one()

    assert (hits, left) == ([1], 0)


async def test_the_applications_own_statements_are_left_as_they_were(file: str) -> None:
    engine = create_async_engine(file)
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as db:
        await db.execute(text("CREATE TABLE mine (id INTEGER PRIMARY KEY, other INTEGER REFERENCES mine)"))
        await SessionRepository(db).get_user_sessions("ada")
        await db.execute(text("INSERT INTO mine VALUES (1, 99)"))  # as long as they leave foreign keys alone
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text("VACUUM"))
        await connection.execute(text("SAVEPOINT a"))
        await connection.execute(text("INSERT INTO mine VALUES (2, 2)"))
        await connection.execute(text("RELEASE a"))
        await connection.rollback()
    async with sessions() as db:
        mine = list(await db.scalars(text("SELECT id FROM mine ORDER BY id")))
    await engine.dispose()

    assert mine == [1, 2]


@pytest.mark.parametrize("engine_of", ["plain", "without a pool", "recommended events"])
async def test_the_writer_takes_the_engine_too(file: str, engine_of: str) -> None:
    engine = ENGINES[engine_of](file)
    async with async_sessionmaker(engine, expire_on_commit=False).begin() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async with SessionWriter(engine) as writer:
        added = await asyncio.gather(*(writer.append(session.id, {"role": "user"}) for _ in range(9)))
    await engine.dispose()

    assert sorted(each.seq for each in added) == list(range(1, 10))


async def test_a_synchronous_session_is_refused_by_name(file: str) -> None:
    engine = create_engine(file.replace("+aiosqlite", ""))
    with SyncSession(engine) as db, pytest.raises(SessionValueError, match="db must be an AsyncSession, not Session"):
        SessionRepository(db)  # type: ignore[arg-type]
    engine.dispose()


@pytest.mark.parametrize("given", [None, "db", async_sessionmaker(), create_async_engine("sqlite+aiosqlite://")])
async def test_what_is_no_session_is_refused_by_name(given: Any) -> None:
    with pytest.raises(SessionValueError, match="db must be an AsyncSession"):
        SessionRepository(given)


async def test_a_session_without_an_engine_is_refused_by_name() -> None:
    with pytest.raises(SessionValueError, match="bind"):
        SessionRepository(AsyncSession())


@pytest.mark.parametrize(("name", "driver"), [("mysql", "aiomysql"), ("postgresql", "psycopg_async")])
async def test_another_database_or_driver_is_refused_by_name(name: str, driver: str) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    engine.dialect.name, engine.dialect.driver = name, driver  # as if it were installed

    with pytest.raises(SessionValueError, match=rf"db .*{name}\+{driver}.*sqlite\+aiosqlite"):
        SessionRepository(AsyncSession(engine))
    with pytest.raises(SessionValueError, match=rf"engine .*{name}\+{driver}.*sqlite\+aiosqlite"):
        SessionWriter(engine)


async def test_a_writer_refuses_what_is_no_asynchronous_engine_by_name() -> None:
    for given in (create_engine("sqlite://"), "sqlite+aiosqlite://", async_sessionmaker()):
        with pytest.raises(SessionValueError, match="engine must be an AsyncEngine"):
            SessionWriter(given)  # type: ignore[arg-type]


async def test_a_store_of_session_contexts_refuses_synchronous_sessions_by_name(file: str) -> None:
    with pytest.raises(ContextStoreError, match="session_factory"):
        SessionContextStore(sessionmaker(create_engine(file.replace("+aiosqlite", ""))))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["engine", "options"])
async def test_a_postgresql_engine_without_transactions_is_refused_by_name(postgres_url: str, where: str) -> None:
    engine = create_async_engine(postgres_url, **({"isolation_level": "AUTOCOMMIT"} if where == "engine" else {}))
    used = engine if where == "engine" else engine.execution_options(isolation_level="AUTOCOMMIT")

    async with AsyncSession(used) as db:
        with pytest.raises(SessionValueError, match="AUTOCOMMIT"):
            SessionRepository(db)

    await engine.dispose()


async def test_an_engine_that_translates_the_default_schema_is_refused_by_name(file: str) -> None:
    engine = create_async_engine(file)
    translating = engine.execution_options(schema_translate_map={None: "elsewhere"})
    harmless = engine.execution_options(schema_translate_map={"one": "another"})

    async with AsyncSession(translating) as db, AsyncSession(harmless) as other:
        with pytest.raises(SessionValueError, match=r"schema_translate_map.*name_tables"):
            SessionRepository(db)
        SessionRepository(other)

    await engine.dispose()
