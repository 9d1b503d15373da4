"""The database backend keeps the contract on SQLite and PostgreSQL, in its own table and in one of the caller's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import ConfigurationError, ContextStoreError, DatabaseError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context.processes import updates_from_processes


class TestSQLite(ContextStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DatabaseContextStore]:
        async with DatabaseContextStore(db_path=tmp_path / "context.db") as store:
            yield store


class TestPostgres(ContextStoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[DatabaseContextStore]:
        async with DatabaseContextStore(url=postgres_url) as store:
            yield store


class TestTableOfAnotherNameOverAGivenEngine(ContextStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DatabaseContextStore]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'given.db'}")
        yield DatabaseContextStore(engine=engine, table='my "other" table')
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
