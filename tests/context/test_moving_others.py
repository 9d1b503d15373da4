"""Keys that move to and from stores that others wrote, and stores behind caches of one process."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agent_service.context import sync
from agent_service.context.adapters import PandasContextAdapter
from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.documents import holds
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.moving import Movable, read_to_move, withdraw
from agent_service.context.outside_store import as_store
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock


class Expiring:
    """Can expire entries, and notes how long each lives."""

    expires = True

    def __init__(self) -> None:
        self.data: dict[Any, dict[str, Any]] = {}
        self.lifetimes: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self.data.get(key)

    def set(self, key: Any, value: dict[str, Any], ttl: Any = None) -> None:
        self.data[key], self.lifetimes[key] = value, ttl

    def delete(self, key: Any) -> None:
        self.data.pop(key, None)

    def list_keys(self) -> list[Any]:
        return list(self.data)


class Comparing(Expiring):
    def compare_and_set(self, key: Any, value: dict[str, Any], *, expected: Any, ttl: Any = None) -> bool:
        fits = holds(self.data.get(key), expected)
        if fits:
            self.set(key, value, ttl)
        return fits


class Versioned(Expiring):
    def get_versioned(self, key: Any) -> Any:
        return (self.data[key], 1) if key in self.data else None

    def set_versioned(self, key: Any, value: dict[str, Any], _expected_version: Any, ttl: Any = None) -> bool:
        self.set(key, value, ttl)
        return True


class FourAndMovable(ContextStore, Movable):
    """Writes the four methods, and hands over its keys itself."""

    expires = True

    def __init__(self) -> None:
        self.below = InMemoryContextStore()

    async def get(self, key: Key) -> Document | None:
        return await self.below.get(key)

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: Any = None) -> None:
        await self.below.set(key, value, ttl=ttl)

    async def delete(self, key: Key) -> None:
        await self.below.delete(key)

    async def list_keys(self) -> list[Any]:
        return await self.below.list_keys()

    async def read_to_move(self, key: Key) -> Any:
        return await self.below.read_to_move(key)

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        return await self.below.withdraw(key, expected)


@pytest.mark.parametrize("kind", [Expiring, Comparing, Versioned])
async def test_a_time_to_live_reaches_the_method_of_an_outside_store_that_compares(kind: type[Expiring]):
    outside = kind()

    assert await as_store(outside).compare_and_set("a", {"n": 1}, expected=None, ttl=5)
    assert outside.lifetimes == {"a": 5}


@pytest.mark.parametrize("kind", [Expiring, Comparing, Versioned])
async def test_a_key_that_moves_to_an_outside_store_keeps_its_time(kind: type[Expiring]):
    old, outside = InMemoryContextStore(), kind()
    await old.set("a", {"n": 1}, ttl=5000)
    await ShardManager({"new": outside}, previous={"old": old}).rebalance()

    assert outside.data == {"a": {"n": 1}}
    assert 0 < outside.lifetimes["a"] <= 5000


async def test_a_store_of_four_methods_that_is_movable_hands_over_its_keys_itself():
    old, new = FourAndMovable(), InMemoryContextStore()
    await old.set("a", {"n": 1}, ttl=5000)
    await ShardManager({"new": new}, previous={"old": old}).rebalance()

    assert await old.list_keys() == []
    found = await new.read_to_move("a")
    assert found is not None
    assert isinstance(found[1], float)
    assert 0 < found[1] <= 5000


async def test_withdrawing_from_an_outside_store_removes_nothing_newer():
    class Slow(Expiring):
        """Answers a read late, so that a writer could come between."""

        reading = asyncio.Event()
        answer = asyncio.Event()

        async def get(self, key: Any) -> Any:
            found = self.data.get(key)
            self.reading.set()
            await self.answer.wait()
            return found

    outside = Slow()
    store = as_store(outside)
    outside.data["a"] = {"reserved": 1}
    withdrawing = asyncio.create_task(withdraw(store, "a", {"reserved": 1}))
    await outside.reading.wait()
    writing = asyncio.create_task(store.set("a", {"n": 2}))
    await asyncio.sleep(0)
    outside.answer.set()

    assert await withdrawing
    await writing
    assert await read_to_move(store, "a") == ({"n": 2}, None)
    assert not await withdraw(store, "a", {"reserved": 1})
    assert not await withdraw(store, "b", {"reserved": 1})


# -- what an outside store returns


async def test_keys_may_come_from_any_iterable():
    class Generates(Expiring):
        async def list_keys(self) -> Any:
            for key in self.data:
                yield key

    outside = Generates()
    outside.data["a"] = {}

    assert await as_store(outside).list_keys() == ["a"]


async def test_an_error_while_keys_are_generated_is_ours():
    class Fails(Expiring):
        def list_keys(self) -> Any:
            yield "a"
            raise LookupError("a driver's own")

    with pytest.raises(ContextStoreError, match="Fails raised LookupError: a driver's own"):
        await as_store(Fails()).list_keys()


@pytest.mark.parametrize("wrong", [None, 5, "text"])
async def test_what_is_no_list_of_keys_and_no_mapping_is_refused_by_name(wrong: Any):
    class Wrong(Expiring):
        def list_keys(self) -> Any:
            return wrong

        def get_many(self, _keys: Any) -> Any:
            return wrong

    with pytest.raises(ContextStoreError, match=r"Wrong\.list_keys must return keys"):
        await as_store(Wrong()).list_keys()
    with pytest.raises(ContextStoreError, match=r"Wrong\.get_many must return a mapping"):
        await as_store(Wrong()).get_many(["a"])


async def test_a_plain_method_that_raises_stop_iteration_fails_instead_of_never_ending():
    class Searches(Expiring):
        def get(self, key: Any) -> Any:
            return next(value for known, value in self.data.items() if known == key)

        def delete(self, key: Any) -> None:
            del self.data[next(known for known in self.data if known == key)]

    store = as_store(Searches())
    for call in (store.get("a"), store.delete("a")):
        with pytest.raises(ContextStoreError, match=r"Searches raised RuntimeError: .*StopIteration"):
            await asyncio.wait_for(call, 30)
    with pytest.raises(ContextStoreError, match=r"Searches raised RuntimeError: .*StopIteration"):
        await asyncio.to_thread(sync.ShardManager({"a": Searches()}).get, "a")


# -- a whole store that takes mappings alone


class TakesMappings(InMemoryContextStore):
    """As stores were written before they were given pairs."""

    async def set_many(self, values: Any, *, ttl: Any = None) -> None:
        await super().set_many({key: dict(value) for key, value in values.items()}, ttl=ttl)


async def test_a_store_that_takes_mappings_alone_is_given_mappings():
    frame = pd.DataFrame({"A": [1]})
    stores: Iterable[ContextStore] = (
        ShardManager({"a": TakesMappings(), "b": TakesMappings()}),
        CacheBackedContextStore(db=TakesMappings(), cache=TakesMappings()),
    )
    for store in stores:
        await store.set_many([("a", {"n": 1}), (1, {"n": 2})])

        assert await store.get_many(["a", 1]) == {"a": {"n": 1}, 1: {"n": 2}}
    adapter = PandasContextAdapter(frame, context_store=TakesMappings())
    await adapter.add_many([(("column", "A"), {"n": 1})])

    assert await adapter.get_context(("column", "A")) == {"n": 1}


# -- caches that one process alone sees, as shards


class LetsWait(InMemoryContextStore):
    """Hands over a key when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def read_to_move(self, key: Key) -> Any:
        self.asked.set()
        await self.go_on.wait()
        return await super().read_to_move(key)


def process(old: ContextStore, new: ContextStore) -> ShardManager:
    """A manager as another process has it: the same databases, caches of its own."""
    behind = {
        name: CacheBackedContextStore(db=db, cache=InMemoryContextStore()) for name, db in (("old", old), ("new", new))
    }
    return ShardManager({"new": behind["new"]}, previous={"old": behind["old"]})


async def test_what_a_cache_still_has_of_a_deleted_key_holds_no_writer_up():
    old, new = InMemoryContextStore(), InMemoryContextStore()
    await old.set("a", {"n": 1})
    one, other = process(old, new), process(old, new)
    assert await other.get("a") == {"n": 1}  # and caches it
    await one.delete("a")
    async with asyncio.timeout(30):
        await other.set("a", {"n": 2})

    assert await one.get("a") == await other.get("a") == {"n": 2}


async def test_a_key_whose_reservation_was_read_is_listed_when_it_has_moved():
    old, new = LetsWait(), InMemoryContextStore()
    await old.set("a", {"n": 1})
    one, other = process(old, new), process(old, new)
    moving = asyncio.create_task(one.rebalance())
    await old.asked.wait()
    assert await other.get("a") == {"n": 1}  # and has seen the reservation at home
    old.go_on.set()
    await moving

    assert await other.list_keys() == ["a"]
    assert await other.get_many(["a"]) == {"a": {"n": 1}}


# -- a reservation that comes between


async def test_an_update_that_ends_in_the_middle_shows_no_reservation():
    class Breaks(InMemoryContextStore):
        """Is reserved by a late mover just before an update, and does not answer afterwards."""

        broken = True

        async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
            await self.set(key, {"agent_service:moving": "token"})
            return await super().update(key, patch, drop_none=drop_none)

        async def compare_and_set(self, *arguments: Any, **options: Any) -> bool:
            if self.broken:
                raise OSError("unplugged")
            return await super().compare_and_set(*arguments, **options)

    home = Breaks()
    shards = ShardManager({"new": home}, previous={"old": InMemoryContextStore()})
    with pytest.raises(ContextStoreError, match="unplugged"):
        await shards.update("a", {"n": 1})
    home.broken = False

    assert await shards.get("a") == {"n": 1}
    assert await shards.get_many(["a"]) == {"a": {"n": 1}}


# -- managers as shards


def test_two_managers_one_within_the_other_do_not_change_at_once():
    inner = ShardManager({"x": InMemoryContextStore()}, previous={"y": InMemoryContextStore()})

    with pytest.raises(ConfigurationError, match="the shard 'in' is a ShardManager that has previous itself"):
        ShardManager({"in": inner}, previous={"old": InMemoryContextStore()})


async def test_keys_move_out_of_a_manager_and_into_one():
    stores = {name: InMemoryContextStore() for name in "abc"}
    inner = ShardManager({name: stores[name] for name in "ab"})
    await inner.set_many({n: {"n": n} for n in range(20)})
    out = ShardManager({"c": stores["c"]}, previous={"in": inner})
    await out.rebalance()

    assert sorted(await stores["c"].list_keys()) == list(range(20))
    await ShardManager({"in": inner}, previous={"c": stores["c"]}).rebalance()
    assert sorted(await inner.list_keys()) == list(range(20))


@pytest.mark.parametrize("kind", ["manager", "cache"])
async def test_a_key_that_moves_out_of_a_store_over_others_keeps_its_time(kind: str):
    clock = FakeClock()
    if kind == "manager":
        old: ContextStore = ShardManager({name: InMemoryContextStore(clock=clock) for name in "ab"})
    else:
        old = CacheContextStore(InMemoryCache(default_ttl=1000, clock=clock))
    new = InMemoryContextStore(ttl=5, clock=clock)
    await old.set("short", {"x": 1}, ttl=10)
    await old.set("long", {"x": 1}, ttl=100)
    await old.set("never", {"x": 1}, ttl=NEVER)
    clock.advance(4)
    await ShardManager({"new": new}, previous={"old": old}).rebalance()

    found = []
    for seconds in (5, 2, 80, 20):
        clock.advance(seconds)
        found.append(sorted(await new.list_keys()))
    assert found == [["long", "never", "short"], ["long", "never"], ["long", "never"], ["never"]]
    assert await old.list_keys() == []


# -- two objects over the same data


@pytest.mark.parametrize("kind", ["file", "path", "url", "redis", "client", "cache"])
def test_two_objects_over_the_same_data_are_no_two_shards(kind: str, tmp_path: Path):
    client = RedisClient("redis://localhost:1/0")
    database = DatabaseContextStore(db_path=tmp_path / "context.db")
    make: dict[str, Callable[[], ContextStore]] = {
        "file": lambda: FileContextStore(tmp_path),
        "path": lambda: DatabaseContextStore(db_path=tmp_path / "other" / ".." / "context.db"),
        "url": lambda: DatabaseContextStore(url="postgresql+asyncpg://u:secret@localhost/db"),
        "redis": lambda: RedisContextStore(host="localhost", password="secret"),
        "client": lambda: RedisContextStore(client=client),
        "cache": lambda: CacheBackedContextStore(db=database, cache=InMemoryContextStore()),
    }

    with pytest.raises(ConfigurationError, match="'old' and 'new' are two stores over the same data") as caught:
        ShardManager({"new": make[kind]()}, previous={"old": make[kind]()})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'a' and 'b' are two stores over the same data"):
        ShardManager({"a": make[kind](), "b": make[kind]()})


def test_places_of_their_own_are_shards(tmp_path: Path):
    client = RedisClient("redis://localhost:1/0")
    database = DatabaseContextStore(db_path=tmp_path / "context.db")
    shards: dict[str, ContextStore] = {
        "file": FileContextStore(tmp_path / "a"),
        "another file": FileContextStore(tmp_path / "b"),
        "table": DatabaseContextStore(db_path=tmp_path / "context.db", table="mine"),
        "prefix": RedisContextStore(client=client, prefix="a"),
        "another prefix": RedisContextStore(client=client, prefix="b"),
        "cache": CacheBackedContextStore(db=database, cache=InMemoryContextStore(), prefix="p"),
        "another cache": CacheBackedContextStore(db=database, cache=InMemoryContextStore(), prefix="q"),
        "memory": InMemoryContextStore(),
        "more memory": InMemoryContextStore(),
    }

    assert ShardManager(shards).shards == shards
