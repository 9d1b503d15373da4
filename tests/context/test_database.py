"""The database backend keeps the contract on SQLite and PostgreSQL, in its own table and in one of the caller's."""

import asyncio
import json
import math
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from agent_service.context.database import DatabaseContextStore
from agent_service.context.session import SessionContextStore
from agent_service.core.errors import ConfigurationError, ContextStoreError, DatabaseError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.state.sql import SQLStateStore
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context import document_c
from tests.context.processes import updates_from_processes


class Base(DeclarativeBase):
    pass


class Mine(Base):
    __tablename__ = "mine_by_key"

    context_key: Mapped[str] = mapped_column(primary_key=True)


class Expiring(ContextStoreContract):
    """Time passes by moving what is stored back, so that no test waits."""

    expires = True
    short = 60.0
    table = "agent_service_context_store"

    async def advance(self, seconds: float) -> None:
        assert self.made is not None
        async with self.made._table._transaction("move") as (db, _):
            await pass_time(db, seconds, self.table)
            await db.commit()

    made: DatabaseContextStore | None = None


async def pass_time(db: AsyncSession, seconds: float, table: str = "agent_service_context_store") -> None:
    """Have so much time pass for the entries of a table."""
    before = f"expires_at - make_interval(secs => {seconds})"
    if db.get_bind().dialect.name == "sqlite":
        before = f"strftime('%Y-%m-%d %H:%M:%f000', expires_at, '-{seconds} seconds')"
    await db.execute(text(f"UPDATE {table} SET expires_at = {before}".replace(":", r"\:")))


class TestSQLite(Expiring):
    @pytest.fixture
    async def store(self, context_file: Path) -> AsyncIterator[DatabaseContextStore]:
        async with DatabaseContextStore(db_path=context_file) as self.made:
            yield self.made


class TestPostgres(Expiring):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[DatabaseContextStore]:
        async with DatabaseContextStore(url=postgres_url) as self.made:
            yield self.made


class TestTableOfAnotherNameOverAGivenEngine(Expiring):
    table = '"my ""other"" table"'

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DatabaseContextStore]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'given.db'}")
        self.made = DatabaseContextStore(engine=engine, table='my "other" table')
        yield self.made
        await engine.dispose()


async def test_sessions_may_be_the_callers(database_url: str):
    manager = DatabaseManager(database_url)
    await manager.prepare()
    store = DatabaseContextStore(session_factory=async_sessionmaker(manager.engine))

    await store.set(("a", 1), {"x": 1})
    async with manager.session() as db:
        rows = (await db.execute(text("SELECT key, value FROM agent_service_context_store"))).all()
    await store.aclose()

    assert rows == [('~{"$tuple":["a",1]}', '{"x":1}')]
    await manager.close()


async def test_two_stores_make_the_same_table_at_once(postgres_url: str):
    stores = [DatabaseContextStore(url=postgres_url, table="made_once") for _ in range(5)]

    await asyncio.gather(*(store.update("a", {f"field{n}": n}) for n, store in enumerate(stores)))

    assert await stores[0].get("a") == {f"field{n}": n for n in range(5)}
    for store in stores:
        await store.aclose()


async def test_a_database_without_the_schema_says_what_to_run(empty_postgres_url: str):
    async with DatabaseContextStore(url=empty_postgres_url) as store:
        with pytest.raises(ContextStoreError, match="agent-service db upgrade") as caught:
            await store.get("a")

    assert isinstance(caught.value.__cause__, DatabaseError)


async def test_a_database_that_is_not_there_is_a_context_store_error():
    async with DatabaseContextStore(url="postgresql+asyncpg://user:secret@127.0.0.1:1/none") as store:
        for call in (store.get("a"), store.set("a", {}), store.update("a", {}), store.list_keys(), store.delete("a")):
            with pytest.raises(ContextStoreError) as caught:
                await call
            assert "secret" not in str(caught.value)


async def test_a_transaction_that_fails_halfway_stores_nothing(postgres_url: str):
    async with DatabaseContextStore(url=postgres_url) as store:
        await store.set("a", {"old": 1})
        manager = DatabaseManager(postgres_url)
        async with manager.session() as db:
            await db.execute(text("ALTER TABLE agent_service_context_store ADD CHECK (key <> 'zzz')"))
        await manager.close()
        with pytest.raises(ContextStoreError):
            await store.set_many({"a": {"new": 1}, "b": {}, "zzz": {}})

        assert await store.get_many(["a", "b"]) == {"a": {"old": 1}}


async def test_crossing_bulk_calls_never_deadlock(database_url: str):
    keys = [f"key{n}" for n in range(50)]
    async with DatabaseContextStore(url=database_url) as store:
        await asyncio.gather(
            *(store.set_many({key: {"n": n} for key in (keys if n % 2 else keys[::-1])}) for n in range(6)),
            *(store.delete_many(keys[::-1]) for _ in range(6)),
        )
        await store.set_many({key: {} for key in keys})

        assert len(await store.list_keys()) == 50


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "mysql://user:secret@host/db"},
        {"url": "no url"},
        {"db_path": "a.db", "url": "sqlite+aiosqlite:///b.db"},
        {"db_path": "a?b.db"},
        {"db_path": "a.db", "table": ""},
        {"db_path": "a.db", "table": "x" * 64},
    ],
    ids=repr,
)
def test_unusable_arguments_are_refused_at_once(arguments: dict[str, Any]):
    with pytest.raises(ConfigurationError) as caught:
        DatabaseContextStore(**arguments)

    assert "secret" not in str(caught.value)


async def test_the_documented_default_is_a_file_in_the_working_directory():
    async with DatabaseContextStore() as store, DatabaseContextStore("context.db") as same:
        await store.set("a", {"x": 1})

        assert await same.get("a") == {"x": 1}


async def test_updates_of_several_processes_lose_nothing(database_url: str):
    async with DatabaseContextStore(url=database_url) as store:
        await store.list_keys()
        await updates_from_processes("database", database_url)

        assert await store.get("shared") == {f"field{n}": n for n in range(30)}


# -- the pool and the isolation of a URL


def manager_of(store: DatabaseContextStore) -> DatabaseManager:
    assert store._managers is not None
    return store._managers.get()[0]


async def test_a_url_s_pool_is_what_the_settings_say_unless_it_is_given(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("POOL_SIZE", 3), ("MAX_OVERFLOW", 2), ("POOL_TIMEOUT", 7), ("POOL_RECYCLE", 60)):
        monkeypatch.setenv(f"DB_{name}", str(value))
    reset_settings()
    url = "postgresql+asyncpg://u@127.0.0.1:1/none"
    async with (
        DatabaseContextStore(url=url) as store,
        DatabaseContextStore(url=url, pool_size=9, pool_timeout=1) as own,
    ):
        pools: list[Any] = [manager_of(each).engine.pool for each in (store, own)]

        assert [pool.size() for pool in pools] == [3, 9]
        assert [pool._max_overflow for pool in pools] == [2, 2]
        assert [pool._timeout for pool in pools] == [7, 1]
        assert [pool._recycle for pool in pools] == [60, 60]


async def test_a_pool_bounds_the_connections_of_a_store(postgres_url: str):
    async with DatabaseContextStore(url=postgres_url, pool_size=1, max_overflow=1) as store:
        await asyncio.gather(*(store.set(n, {"n": n}) for n in range(20)))

        assert manager_of(store).get_metrics()["limit"] == 2
        assert manager_of(store).get_metrics()["open"] <= 2


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_updates_lose_nothing_under_any_isolation(postgres_url: str, level: str):
    async with DatabaseContextStore(url=postgres_url, isolation_level=level) as store:
        async with manager_of(store).engine.connect() as connection:
            in_force = (await connection.execute(text("SHOW transaction_isolation"))).scalar_one()
        await asyncio.gather(*(store.update("a", {f"field{n}": n}) for n in range(15)))
        wins = await asyncio.gather(*(store.compare_and_set("b", {"by": n}, expected=None) for n in range(10)))
        await asyncio.gather(*(store.set_many({"c": {"n": n}, "d": {"n": n}}) for n in range(10)))
        removed = await asyncio.gather(*(store.delete_many(["c", "d"]) for _ in range(5)))

        assert in_force == level.lower()
        assert await store.get("a") == {f"field{n}": n for n in range(15)}
        assert sum(wins) == 1
        assert sum(removed) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 0},
        {"pool_size": True},
        {"pool_size": "5"},
        {"max_overflow": -1},
        {"pool_timeout": 0},
        {"pool_recycle": -2},
        {"statement_timeout": 0},
        {"isolation_level": "serialisable"},
        {"pool_sise": 5},
    ],
    ids=repr,
)
def test_an_option_that_cannot_be_used_is_refused_by_name(options: dict[str, Any]):
    for make in (DatabaseContextStore, SQLStateStore):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            make(url="postgresql+asyncpg://u@h/d", **options)


def test_options_of_a_pool_belong_to_a_url():
    engine = create_async_engine("sqlite+aiosqlite://")

    for place in ({"engine": engine}, {"session_factory": async_sessionmaker(engine)}):
        with pytest.raises(ConfigurationError, match="pool_size"):
            DatabaseContextStore(**place, pool_size=3)
    with pytest.raises(ConfigurationError, match="isolation_level"):
        DatabaseContextStore(url="sqlite+aiosqlite:///context.db", isolation_level="READ COMMITTED")


# -- what is not asynchronous


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (lambda: sessionmaker(create_engine("sqlite://")), "async_sessionmaker"),
        (lambda: scoped_session(sessionmaker(create_engine("sqlite://"))), "async_sessionmaker"),
        (lambda: Session, "async_sessionmaker"),
        (lambda: create_async_engine("sqlite+aiosqlite://"), "AsyncEngine"),
        (lambda: "sqlite+aiosqlite://", "str"),
    ],
    ids=["sessionmaker", "scoped", "class", "engine", "url"],
)
def test_sessions_that_cannot_be_awaited_are_refused_by_name(given: Any, word: str):
    sessions = given()

    for make in (
        lambda: SqlContextRepository(sessions),
        lambda: SqlContextRepository(sessions, model=Mine),
        lambda: DatabaseContextStore(session_factory=sessions),
        lambda: SQLStateStore(session_factory=sessions),
        lambda: SessionContextStore(sessions),
    ):
        with pytest.raises((ConfigurationError, ContextStoreError), match=word) as caught:
            make()
        assert "session_factory" in str(caught.value)


@pytest.mark.parametrize("model", [None, True], ids=["json", "entity"])
async def test_a_function_that_gives_sessions_without_await_is_refused_when_it_is_called(model: Any):
    engine = create_engine("sqlite://")
    repository = SqlContextRepository(lambda: Session(engine), model=Mine if model else None)  # type: ignore[arg-type, return-value]

    for call in (repository.get("a"), repository.set("a", {}), repository.delete("a")):
        with pytest.raises(ConfigurationError, match="async_sessionmaker"):
            await call


def test_an_engine_that_cannot_be_awaited_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="create_async_engine"):
        DatabaseContextStore(engine=create_engine("sqlite://"))  # type: ignore[arg-type] # that is the point


async def test_a_sessionmaker_of_asynchronous_sessions_is_taken(tmp_path: Path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'mine.db'}")
    repository = SqlContextRepository(sessionmaker(engine, class_=AsyncSession), table="mine")  # type: ignore[call-overload]

    await repository.set("a", {"x": 1})

    assert await repository.get("a") == {"x": 1}
    await engine.dispose()


# -- the second document's own table

ROWS: dict[str, Any] = {
    "plain": {"n": 1},
    str(("column", "ColumnA")): {"desc": "Integer values", "inner": [1, None, {"a": True}]},
    "~tilde": {"x": 1},
    "x" * 3_000: {"long": 1},
    "dollar": {"$tuple": [1]},
    "nan": {"value": math.nan},
}


@pytest.mark.parametrize("count", [0, 2_500])
async def test_a_file_of_the_documents_own_store_opens_with_what_it_holds(tmp_path: Path, count: int):
    theirs = document_c.DatabaseContextStore(tmp_path / "context.db")
    for key, value in ROWS.items():
        theirs.set(key, value)
    more = [(f"key{number}", json.dumps({"n": number})) for number in range(count)]
    theirs.connection.executemany("INSERT INTO context_store VALUES (?, ?)", more)
    theirs.connection.commit()

    async with DatabaseContextStore(db_path=tmp_path / "context.db") as store:
        found = await store.get_many(ROWS)
        assert repr(found) == repr(ROWS)
        assert len(await store.list_keys()) == len(ROWS) + count
        await store.update("plain", {"m": 2})
        await store.set(("a", 1), {"x": 1})
        assert (await manager_of(store).check()).differences == ()
        await store.delete("plain")

    async with DatabaseContextStore(db_path=tmp_path / "context.db") as again:
        assert await again.get("plain") is None
        assert await again.get(("a", 1)) == {"x": 1}


async def test_the_documents_own_code_goes_on_over_the_file_that_was_opened(tmp_path: Path):
    theirs = document_c.DatabaseContextStore(tmp_path / "context.db")
    theirs.set("a", {"n": 1})
    async with DatabaseContextStore(db_path=tmp_path / "context.db") as store:
        await store.set("b", {"n": 2})
        again = document_c.DatabaseContextStore(tmp_path / "context.db")
        again.set("a", {"n": 3})

        assert await store.get("a") == {"n": 3}
        assert again.get("b") == {"n": 2}
        assert sorted(again.list_keys()) == ["a", "b"]


async def test_such_a_table_of_another_name_opens_too(tmp_path: Path):
    with sqlite3.connect(tmp_path / "context.db") as connection:
        connection.execute("CREATE TABLE mine (key TEXT PRIMARY KEY, value TEXT)")
        connection.execute("INSERT INTO mine VALUES ('a', '{\"n\": 1}'), ('empty', NULL)")
    connection.close()

    async with DatabaseContextStore(db_path=tmp_path / "context.db", table="mine") as store:
        assert await store.get("a") == {"n": 1}
        assert await store.list_keys() == ["a"]
        assert await store.update("a", {"m": 2}) == {"n": 1, "m": 2}


async def test_such_a_table_without_row_ids_opens_too(tmp_path: Path):
    rows = {"": {"empty": 1}} | {f"key{number}": {"n": number} for number in range(2_500)}
    with sqlite3.connect(tmp_path / "context.db") as connection:
        connection.execute("CREATE TABLE context_store (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        written = [(key, json.dumps(value)) for key, value in rows.items()]
        connection.executemany("INSERT INTO context_store VALUES (?, ?)", written)
    connection.close()

    async with DatabaseContextStore(db_path=tmp_path / "context.db") as store:
        assert await store.get_many(await store.list_keys()) == rows


async def test_processes_that_open_such_a_file_at_once_lose_nothing(tmp_path: Path):
    theirs = document_c.DatabaseContextStore(tmp_path / "context.db")
    theirs.set("shared", {"before": 1})
    url = f"sqlite+aiosqlite:///{tmp_path / 'context.db'}"

    await updates_from_processes("database", url, updates=5)

    async with DatabaseContextStore(url=url) as store:
        assert await store.get("shared") == {"before": 1, **{f"field{n}": n for n in range(10)}}
