"""The synchronous face: the same results from threads and scripts, and no deadlock on a loop's thread."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_service.context import interface, sync
from agent_service.context.sync_store import SyncContextStore
from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import BridgeError, ContextStoreError
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.redis.client import RedisClient


class Own(sync.ContextStore):
    """A store of four plain methods."""

    def __init__(self) -> None:
        self.data: dict[Any, dict[str, Any]] = {}

    def get(self, key: Any) -> dict[str, Any] | None:
        return self.data.get(key)

    def set(self, key: Any, value: Any) -> None:  # type: ignore[override] # as others write it
        self.data[key] = value

    def delete(self, key: Any) -> None:
        self.data.pop(key, None)

    def list_keys(self) -> list[Any]:
        return list(self.data)


@pytest.fixture(params=["memory", "file", "sqlite", "postgres", "redis", "cache_backed", "shards", "cache", "derived"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[SyncContextStore]:
    kinds: dict[str, Any] = {
        "memory": lambda: sync.InMemoryContextStore(),
        "file": lambda: sync.FileContextStore(tmp_path),
        "sqlite": lambda: sync.DatabaseContextStore(request.getfixturevalue("context_file")),
        "postgres": lambda: sync.DatabaseContextStore(url=request.getfixturevalue("postgres_url")),
        "redis": lambda: sync.RedisContextStore(url=redis_url, timeout=10),
        "cache_backed": lambda: sync.CacheBackedContextStore(
            db=sync.DatabaseContextStore(request.getfixturevalue("context_file")), cache=sync.InMemoryContextStore()
        ),
        "cache": lambda: sync.CacheContextStore(InMemoryCache()),
        "derived": lambda: Own(),
        "shards": lambda: sync.ShardManager({"a": sync.InMemoryContextStore(), "b": sync.FileContextStore(tmp_path)}),
    }
    with kinds[request.param]() as store:
        yield store


def test_every_method_works_without_await(store: SyncContextStore):
    store.set("a", {"x": 1})
    store.set_many({("b", 1): {"y": 2}})
    pairs: list[tuple[Any, dict[str, Any]]] = [(1, {})]
    store.set_many(pair for pair in pairs)

    assert store.get("a") == {"x": 1}
    assert store.update("a", {"z": None}, drop_none=True) == {"x": 1}
    assert store.get_many(["a", 1, "missing"]) == {"a": {"x": 1}, 1: {}}
    assert store.compare_and_set("a", {"version": 1}, expected=None) is False
    assert sorted(map(str, store.list_keys())) == ["('b', 1)", "1", "a"]
    assert store.delete_many([1, "missing"]) == 1
    store.delete("a")
    assert store.list_keys() == [("b", 1)]


def test_threads_lose_no_update(store: SyncContextStore):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: store.update("a", {f"field{n}": n}), range(30)))

    assert store.get("a") == {f"field{n}": n for n in range(30)}


def test_the_async_and_the_synchronous_face_are_one_store(tmp_path: Path, redis_url: str):
    from agent_service.context.redis import RedisContextStore  # noqa: PLC0415

    async def use() -> None:
        async with RedisContextStore(url=redis_url, timeout=10) as store:
            await store.set("a", {"from": "loop"})
            assert await asyncio.to_thread(store.sync.update, "a", {"and": "thread"}) == {
                "from": "loop",
                "and": "thread",
            }

    asyncio.run(use())


async def test_on_the_thread_of_a_running_loop_it_raises_at_once(tmp_path: Path):
    store = sync.FileContextStore(tmp_path)
    started = time.monotonic()

    with pytest.raises(ContextStoreError, match="event loop") as caught:
        store.get("a")

    assert isinstance(caught.value.__cause__, BridgeError)
    assert time.monotonic() - started < 1


async def test_in_memory_it_works_on_the_thread_of_a_running_loop_too():
    store = sync.InMemoryContextStore()
    store.set("a", {"x": 1})

    assert store.get("a") == {"x": 1}


def test_errors_are_those_of_the_store():
    with sync.RedisContextStore(host="127.0.0.1", port=1) as store, pytest.raises(ContextStoreError) as caught:
        store.get("a")

    assert caught.value.__cause__ is not None


def test_a_shard_manager_can_be_rebalanced_without_await():
    shards = {name: sync.InMemoryContextStore() for name in "abc"}
    sync.ShardManager({"a": shards["a"]}).set_many({n: {"n": n} for n in range(30)})
    manager = sync.ShardManager(shards)

    assert manager.rebalance().total == 30
    assert manager.get_many(range(30)) == {n: {"n": n} for n in range(30)}
    assert {manager.shard_of(n) for n in range(30)} == {"a", "b", "c"}


def test_both_faces_have_the_same_methods():
    awaited = {name for name in vars(interface.ContextStore) if not name.startswith("_")} - {
        "expires",
        "never_waits",
        "stamped_as_cache",
    }

    assert awaited - {"sync", "aclose"} | {"close", "run", "store"} >= {
        name for name in dir(SyncContextStore(sync.InMemoryContextStore().store)) if not name.startswith("_")
    }


async def test_a_given_client_can_be_used_through_this_face_alone(redis_url: str):
    client = RedisClient(redis_url)
    store = sync.RedisContextStore(client=client)

    await asyncio.to_thread(store.set, "a", {"x": 1})

    assert await asyncio.to_thread(store.get, "a") == {"x": 1}
    await asyncio.to_thread(store.run, client.aclose())


def test_the_twin_of_a_cache_stands_before_a_database(redis_url: str):
    cache: InMemoryCache[Any] = InMemoryCache()
    db = sync.InMemoryContextStore()
    store = sync.CacheBackedContextStore(db=db, cache=sync.CacheContextStore(cache))
    store.set("a", {"x": 1})
    db.set("a", {"x": 2})

    assert store.get("a") == {"x": 1}
    assert store.update("a", {"y": 1}) == store.get("a") == {"x": 2, "y": 1}


def test_a_synchronous_call_has_no_limit_of_its_own(monkeypatch: pytest.MonkeyPatch):
    limits: list[float | None] = []
    run = SyncBridge.run

    def noted(self: SyncBridge, coro: Any, timeout: float | None = 30.0, **options: Any) -> Any:
        limits.append(timeout)
        return run(self, coro, timeout, **options)

    monkeypatch.setattr(SyncBridge, "run", noted)
    shards = sync.ShardManager({"a": sync.InMemoryContextStore(), "b": sync.InMemoryContextStore()})
    shards.set("a", {})
    shards.rebalance()
    sync.PandasContextAdapter(SimpleNamespace(columns=[], index=[]), context_store=shards).list_context_keys()

    assert limits == [None] * 3
