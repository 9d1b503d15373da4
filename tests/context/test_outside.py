"""Stores that others wrote: the second document's own code, duck-typed ones, subclasses of four methods."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest

from agent_service.context import sync
from agent_service.context.adapters import PandasContextAdapter
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.factory import get_context_store, set_context_store
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside_store import as_store
from agent_service.context.resolver import get_context, update_context
from agent_service.context.shards.manager import ShardManager
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.state.models import CoachContext
from agent_service.state.over_context import ContextStateStore
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context import document_c
from tests.support.ids import steady

COLUMN = ("column", "ColumnA")


class Minimal(ContextStore):
    """A store that writes the four methods well, and leaves the others to be derived."""

    def __init__(self) -> None:
        self.below = InMemoryContextStore()

    async def get(self, key: Key) -> Document | None:
        return await self.below.get(key)

    async def set(self, key: Key, value: Mapping[str, Any]) -> None:  # type: ignore[override] # as others write it
        await self.below.set(key, value)

    async def delete(self, key: Key) -> None:
        await self.below.delete(key)

    async def list_keys(self) -> list[Any]:
        return await self.below.list_keys()


class TestDerived(ContextStoreContract):
    @pytest.fixture
    def store(self) -> ContextStore:
        return as_store(Minimal())


class TestDerivedBehindACache(ContextStoreContract):
    @pytest.fixture
    def store(self) -> ContextStore:
        return CacheBackedContextStore(db=Minimal(), cache=Minimal())


class FourMethods(ContextStore):
    """A subclass that writes what the interface demands, and no time to live."""

    def __init__(self) -> None:
        self.data: dict[Any, dict[str, Any]] = {}

    async def get(self, key: Key) -> Document | None:
        await asyncio.sleep(0)
        return self.data.get(key)

    async def set(self, key: Key, value: Mapping[str, Any]) -> None:  # type: ignore[override] # as others write it
        await asyncio.sleep(0)
        self.data[key] = dict(value)

    async def delete(self, key: Key) -> None:
        self.data.pop(key, None)

    async def list_keys(self) -> list[Any]:
        return list(self.data)


class SynchronousFourMethods(sync.ContextStore):
    """The second document's store in memory, on this package's synchronous interface."""

    def __init__(self) -> None:
        self._data: dict[Any, dict[str, Any]] = {}

    def set(self, key: Any, value: dict[str, Any]) -> None:  # type: ignore[override]
        self._data[key] = value

    def get(self, key: Any) -> dict[str, Any] | None:
        return self._data.get(key, None)

    def delete(self, key: Any) -> None:
        if key in self._data:
            del self._data[key]

    def list_keys(self) -> list[Any]:
        return list(self._data.keys())


class Ducks:
    """Coroutines, with no base at all."""

    def __init__(self) -> None:
        self.data: dict[Any, dict[str, Any]] = {}

    async def get(self, key: Any) -> dict[str, Any] | None:
        return self.data.get(key)

    async def set(self, key: Any, value: dict[str, Any]) -> None:
        self.data[key] = value

    async def delete(self, key: Any) -> None:
        self.data.pop(key, None)

    async def list_keys(self) -> list[Any]:
        return list(self.data)


KINDS: list[Any] = [document_c.InMemoryContextStore, FourMethods, SynchronousFourMethods, Ducks]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def outside(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"ColumnA": [1, 2, 3], "ColumnB": [4, 5, 6]})


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    yield
    set_context_store(None)


async def listed(outside: Any) -> list[Any]:
    """What the store itself lists."""
    found = outside.list_keys()
    return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]


async def test_an_outside_store_serves_an_adapter(outside: Any, frame: pd.DataFrame):
    adapter = PandasContextAdapter(frame, context_store=outside)

    await adapter.add_context(COLUMN, {"desc": "Integer values"})
    await adapter.add_many({("row", 0): {"n": 0}, ("row", 1): {"n": 1}})

    assert await adapter.get_context(COLUMN) == {"desc": "Integer values"}
    assert await adapter.update_context(COLUMN, {"unit": "kg"}) == {"desc": "Integer values", "unit": "kg"}
    if not isinstance(outside, sync.ContextStore):
        assert COLUMN in await listed(outside)
    assert await adapter.remove_many([("row", 0), ("row", 2)]) == 1
    assert sorted(await adapter.list_context_keys()) == [COLUMN, ("row", 1)]


async def test_an_outside_store_is_the_process_s_own(outside: Any):
    set_context_store(outside)

    assert await update_context({"context_key": "alice"}, {"repo": "mine"}) == {"repo": "mine"}
    assert await get_context("alice") == {"repo": "mine"}
    assert await get_context_store().get_many(["alice", "bob"]) == {"alice": {"repo": "mine"}}


async def test_outside_stores_are_shards(outside: Any):
    shards = ShardManager({"ours": InMemoryContextStore(), "theirs": outside})
    await shards.set_many({n: {"n": n} for n in range(40)})

    assert await shards.get_many(range(40)) == {n: {"n": n} for n in range(40)}
    assert sorted(await shards.list_keys()) == list(range(40))
    assert await shards.update(7, {"m": 1}) == {"n": 7, "m": 1}
    assert await shards.delete_many(range(50)) == 40


async def test_shards_move_out_of_an_outside_store(outside: Any):
    first = ShardManager({"theirs": outside})
    await first.set_many({n: {"n": n} for n in range(40)})
    second = ShardManager({**first.shards, "ours": InMemoryContextStore()})

    await second.rebalance()

    assert await second.get_many(range(40)) == {n: {"n": n} for n in range(40)}
    assert len(await second.shards["ours"].list_keys()) > 5


async def test_an_outside_store_is_a_cache_and_a_database(outside: Any):
    db = InMemoryContextStore()
    before = CacheBackedContextStore(db=db, cache=outside)
    await before.set("a", {"x": 1})
    await db.set("a", {"x": 2})

    assert await before.get("a") == {"x": 1}
    await before.update("a", {"y": 1})
    assert await before.get("a") == {"x": 2, "y": 1}

    behind = CacheBackedContextStore(db=type(outside)(), cache=InMemoryContextStore())
    await behind.set(COLUMN, {"x": 1})
    assert await behind.list_keys() == [COLUMN]
    assert await behind.get(COLUMN) == {"x": 1}


async def test_an_outside_store_keeps_states(outside: Any):
    states = ContextStateStore(outside)
    context = CoachContext(user_id="ada")
    await states.save_context(context)
    await states.save_context(context, expected_version=1)

    assert await states.load_context("ada") == context
    assert await states.list_user_ids() == ["ada"]


async def test_concurrent_updates_and_sets_of_an_outside_store_lose_nothing(outside: Any):
    adapters = [PandasContextAdapter(pd.DataFrame({"ColumnA": []}), context_store=outside) for _ in range(2)]

    await asyncio.gather(*(adapters[n % 2].update_context(COLUMN, {f"field{n}": n}) for n in range(30)))

    assert await adapters[0].get_context(COLUMN) == {f"field{n}": n for n in range(30)}


async def test_a_subclass_of_four_methods_has_the_others():
    store = FourMethods()
    await asyncio.gather(*(store.update("a", {f"field{n}": n}) for n in range(10)))
    await store.set_many([("b", {"x": 1}), (("c",), {})])

    assert await store.get("a") == {f"field{n}": n for n in range(10)}
    assert await store.compare_and_set("b", {"x": 2}, expected={"x": 1}) is True
    assert await store.compare_and_set("b", {"x": 3}, expected={"x": 1}) is False
    assert await store.get_many(["b", ("c",), "d"]) == {"b": {"x": 2}, ("c",): {}}
    assert await store.delete_many(["b", "d"]) == 1


async def test_what_an_outside_store_cannot_do_is_said_by_name(outside: Any):
    manager = ShardManager({"theirs": outside})

    for call in (
        manager.set("a", {}, ttl=5),
        CacheBackedContextStore(db=outside, cache=InMemoryContextStore()).set("a", {}, ttl=5),
    ):
        with pytest.raises(ContextStoreError, match="ttl"):
            await call
    for key in ([], object()):
        with pytest.raises(ContextStoreError, match="key"):
            await manager.set(key, {})


async def test_what_was_read_from_an_outside_store_can_be_changed_without_changing_it():
    outside = document_c.InMemoryContextStore()
    outside.set("a", {"inner": [1]})
    set_context_store(outside)

    (await get_context("a"))["inner"].append(2)

    assert outside.get("a") == {"inner": [1]}


async def test_bulk_methods_that_an_outside_store_offers_are_used():
    class Bulk(Ducks):
        calls: list[str] = []  # noqa: RUF012 - of one test

        async def set_many(self, values: Mapping[Any, dict[str, Any]]) -> None:
            self.calls.append("set_many")
            self.data.update(values)

        async def get_many(self, keys: list[Any]) -> dict[Any, dict[str, Any]]:
            self.calls.append("get_many")
            return {key: self.data[key] for key in keys if key in self.data}

        async def delete_many(self, keys: list[Any]) -> None:
            self.calls.append("delete_many")
            for key in keys:
                self.data.pop(key, None)

    set_context_store(Bulk())
    store = get_context_store()
    await store.set_many({"a": {"n": 1}, "b": {"n": 2}})

    assert await store.get_many(["a", "c"]) == {"a": {"n": 1}}
    assert await store.delete_many(["a", "c"]) == 1
    assert Bulk.calls == ["set_many", "get_many", "get_many", "delete_many"]


@pytest.mark.parametrize("thing", [object(), {}, 5, Ducks, document_c.InMemoryContextStore], ids=steady)
def test_what_is_no_store_is_refused_where_it_is_given(thing: Any, frame: pd.DataFrame):
    for make in (
        lambda: PandasContextAdapter(frame, context_store=thing),
        lambda: sync.PandasContextAdapter(frame, context_store=thing),
        lambda: CacheBackedContextStore(db=thing, cache=InMemoryContextStore()),
        lambda: CacheBackedContextStore(db=InMemoryContextStore(), cache=thing),
        lambda: ContextStateStore(thing),
    ):
        with pytest.raises((ContextStoreError, ConfigurationError), match="get, set"):
            make()
    for refuse in (lambda: set_context_store(thing), lambda: ShardManager({"a": thing})):
        with pytest.raises(ConfigurationError, match="get, set"):
            refuse()


# -- the second document's code on the synchronous interface


@pytest.fixture(params=["memory", "redis", "sqlite"])
def documented(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Any:
    match request.param:
        case "memory":
            return document_c.InMemoryContextStore()
        case "redis":
            place = urlsplit(redis_url)
            return document_c.RedisContextStore(host=place.hostname or "", port=place.port or 0)
        case _:
            return document_c.DatabaseContextStore(tmp_path / "theirs.db")


class Names:
    """A data structure whose parts are named by text, which every one of the document's stores can keep as a key."""

    columns = ("a", "b")
    index = range(2)


class NameAdapter(sync.BaseContextAdapter):
    class awaited(PandasContextAdapter):  # noqa: N801 - the attribute that a subclass names
        def normalised(self, key: Any) -> Key:
            return str(key)

        def exists(self, key: Any) -> bool:
            return key in self.data.columns


def test_the_documents_example_runs_over_its_own_store(frame: pd.DataFrame):
    store = document_c.InMemoryContextStore()
    adapter = sync.PandasContextAdapter(frame, context_store=store)
    adapter.add_context(COLUMN, {"desc": "Integer values"})

    assert adapter.get_context(COLUMN) == {"desc": "Integer values"}
    assert store.list_keys() == [COLUMN]


def test_the_documents_stores_work_in_a_synchronous_adapter(documented: Any):
    adapter = NameAdapter(Names(), context_store=documented)
    adapter.add_context("a", {"n": 1})

    assert adapter.update_context("a", {"m": 2}) == {"n": 1, "m": 2}
    assert adapter.list_context_keys() == ["a"]
    assert documented.get("a") == {"n": 1, "m": 2}


def test_the_documents_stores_work_in_the_registry_as_shards_and_before_a_database(documented: Any):
    sync.set_context_store(documented)
    sync.set_context("alice", {"n": 1})
    assert sync.update_context("alice", {"m": 2}) == sync.get_context("alice") == {"n": 1, "m": 2}

    shards = sync.ShardManager({"theirs": documented, "ours": sync.InMemoryContextStore()})
    shards.set_many({f"key{n}": {"n": n} for n in range(20)})
    assert shards.get_many([f"key{n}" for n in range(20)]) == {f"key{n}": {"n": n} for n in range(20)}

    backed = sync.CacheBackedContextStore(db=sync.InMemoryContextStore(), cache=documented)
    backed.set("b", {"x": 1})
    assert backed.update("b", {"y": 2}) == backed.get("b") == {"x": 1, "y": 2}
    behind = sync.CacheBackedContextStore(db=documented, cache=sync.InMemoryContextStore())
    behind.set("c", {"x": 1})
    assert behind.get("c") == documented.get("c") == {"x": 1}


def test_the_synchronous_face_may_be_put_over_a_store_of_others():
    theirs = document_c.InMemoryContextStore()
    face = sync.ContextStore(theirs)
    face.set_many([("a", {"n": 1}), ("b", {"n": 2})])
    shards = sync.ShardManager({"face": face})

    assert shards.update("a", {"m": 2}) == theirs.get("a") == {"n": 1, "m": 2}
    assert face.delete_many(["a", "b", "c"]) == 2


def test_plain_methods_called_synchronously_run_in_the_thread_that_calls():
    class Where(document_c.InMemoryContextStore):
        threads: set[int] = set()  # noqa: RUF012 - of one test

        def get(self, key: Any) -> dict[str, Any] | None:
            self.threads.add(threading.get_ident())
            return super().get(key)

    shards = sync.ShardManager({"a": Where(), "b": Where()})
    shards.get_many(range(20))

    assert Where.threads == {threading.get_ident()}


async def test_plain_methods_called_on_a_loop_run_in_other_threads():
    class Where(document_c.InMemoryContextStore):
        threads: set[int] = set()  # noqa: RUF012 - of one test

        def get(self, key: Any) -> dict[str, Any] | None:
            self.threads.add(threading.get_ident())
            return super().get(key)

    await ShardManager({"a": Where(), "b": Where()}).get_many(range(20))

    assert threading.get_ident() not in Where.threads
