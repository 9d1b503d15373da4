"""Synchronous calls: from threads and programs without a loop they work, on a loop's own thread they are refused."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.store.base import GetOp

from agent_service.core.errors import BridgeError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore


@pytest.fixture
def configured_store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentServiceStore]:
    """A store of the configured database, made outside of any loop."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    store = AgentServiceStore()
    yield store
    store.close()


def use(store: AgentServiceStore, key: str) -> dict[str, Any]:
    store.put(("a",), key, {"of": key})
    assert [each.key for each in store.search(("a",), filter={"of": key})] == [key]
    assert store.list_namespaces() == [("a",)]
    item = store.get(("a",), key)
    assert item is not None
    store.delete(("a",), key)
    assert store.get(("a",), key) is None
    return item.value


def test_a_program_without_a_loop(configured_store: AgentServiceStore) -> None:
    assert use(configured_store, "k") == {"of": "k"}


def test_many_threads_without_a_loop(configured_store: AgentServiceStore) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: found.append(use(configured_store, f"k{n}"))) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(found) == 8


async def test_threads_beside_the_loop_that_owns_the_connections(database: DatabaseManager) -> None:
    store = AgentServiceStore(database)

    found = await asyncio.gather(*(asyncio.to_thread(use, store, f"k{n}") for n in range(8)))

    assert [each["of"] for each in found] == [f"k{n}" for n in range(8)]
    await store.aclose()


async def test_threads_of_a_configured_store_use_its_loop(configured: None) -> None:
    store = AgentServiceStore()
    await store.aput(("b",), "k", {"n": 1})

    item = await asyncio.to_thread(store.get, ("b",), "k")
    assert item is not None
    assert item.value == {"n": 1}
    await asyncio.to_thread(store.delete, ("b",), "k")
    assert await asyncio.to_thread(use, store, "k") == {"of": "k"}
    await store.aclose()


@pytest.mark.parametrize("call", ["get", "put", "search", "list_namespaces", "delete", "batch"])
async def test_on_the_loops_own_thread_they_are_refused_at_once(database: DatabaseManager, call: str) -> None:
    store = AgentServiceStore(database)
    arguments: dict[str, tuple[Any, ...]] = {
        "get": (("a",), "k"),
        "put": (("a",), "k", {}),
        "search": (("a",),),
        "list_namespaces": (),
        "delete": (("a",), "k"),
        "batch": ([GetOp(("a",), "k")],),
    }

    with pytest.raises(asyncio.InvalidStateError, match="await the method that begins with a") as refused:
        getattr(store, call)(*arguments[call])

    assert isinstance(refused.value, BridgeError)
    assert await store.aget(("a",), "k") is None
    await store.aclose()


async def test_a_store_whose_loop_is_elsewhere_is_used_there(database: DatabaseManager) -> None:
    store = AgentServiceStore(database)

    def elsewhere() -> Any:
        return asyncio.run(store.aget(("a",), "k"))

    await store.aput(("a",), "k", {"n": 1})
    item = await asyncio.to_thread(elsewhere)

    assert item is not None
    assert item.value == {"n": 1}
    await store.aclose()


def test_a_database_whose_loop_is_over_is_named(sqlite_url: str) -> None:
    async def make() -> tuple[DatabaseManager, AgentServiceStore]:
        database = DatabaseManager(sqlite_url)
        store = AgentServiceStore(database)
        await store.aput(("a",), "k", {})
        await database.close()
        return database, store

    _, store = asyncio.run(make())

    with pytest.raises(BridgeError, match="leave database out"):
        asyncio.run(store.aget(("a",), "k"))
    with pytest.raises(BridgeError):
        store.get(("a",), "k")


async def test_closing_what_threads_opened_leaves_the_database_of_the_loop_open(configured: None) -> None:
    store = AgentServiceStore()
    await store.aput(("a",), "k", {})
    database = get_database()

    assert await asyncio.to_thread(store.get, ("a",), "k") is not None
    await asyncio.to_thread(store.close)

    assert get_database() is database
    assert await store.aget(("a",), "k") is not None
    await store.aclose()


def test_each_loop_has_connections_of_its_own(configured_store: AgentServiceStore) -> None:
    async def one(n: int) -> int:
        await configured_store.aput(("n",), str(n), {"n": n})
        found = len(await configured_store.asearch(("n",)))
        await close_database()
        return found

    assert [asyncio.run(one(n)) for n in range(3)] == [1, 2, 3]
    assert len(configured_store.search(("n",))) == 3
