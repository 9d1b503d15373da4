"""What caches, databases and shards of others raise: a cache never raises, a store raises an error of ours by name."""

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from agent_service.context import resolver, sync
from agent_service.context.adapters import PandasContextAdapter
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.factory import set_context_store
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.core.errors import ContextStoreError, StateStoreError
from agent_service.state.models import CoachContext
from agent_service.state.over_context import ContextStateStore
from tests.context import document_c

COLUMN = ("column", "a")
CALLS = ("get", "set", "update", "delete", "list_keys", "get_many", "set_many", "delete_many", "compare_and_set")
ERRORS = [
    sqlite3.OperationalError("disk I/O error"),
    RedisConnectionError("connection lost"),
    KeyError("inner"),
    TimeoutError("silent"),
]


class Fails(InMemoryContextStore):
    """A store whose methods raise whatever a driver does, while it is told to."""

    error: BaseException | None = None

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self._fail()


def _failing(name: str) -> Any:
    async def method(self: Fails, *given: Any, **options: Any) -> Any:
        self._fail()
        return await getattr(super(Fails, self), name)(*given, **options)

    return method


for call in CALLS:
    setattr(Fails, call, _failing(call))


class FailsPlainly(document_c.InMemoryContextStore):
    """The second document's store, with errors of its driver that it does not translate."""

    error: BaseException | None = None

    def get(self, key: Any) -> dict[str, Any] | None:
        if self.error is not None:
            raise self.error
        return super().get(key)

    def set(self, key: Any, value: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        super().set(key, value)

    def delete(self, key: Any) -> None:
        if self.error is not None:
            raise self.error
        super().delete(key)

    def list_keys(self) -> list[Any]:
        if self.error is not None:
            raise self.error
        return super().list_keys()


@pytest.fixture(params=[Fails, FailsPlainly], ids=lambda kind: kind.__name__)
def failing(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def error(request: pytest.FixtureRequest) -> Exception:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    yield
    set_context_store(None)


async def test_a_cache_raises_nothing_and_says_nothing_old_afterwards(failing: Any, error: Exception):
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=failing)
    await store.set_many({"a": {"v": "old"}, "b": {"v": "old"}, "c": {"v": "old"}, "d": {"v": "old"}})
    failing.error = error
    await store.set("a", {"v": "new"})
    assert await store.update("b", {"v": "new"}) == {"v": "new"}
    await store.delete("c")
    assert await store.compare_and_set("d", {"v": "new"}, expected={"v": "old"}) is True
    during = await store.get_many("abcd")
    failing.error = None

    assert during == {key: {"v": "new"} for key in "abd"}
    assert [await store.get(key) for key in "abcd"] == [{"v": "new"}, {"v": "new"}, None, {"v": "new"}]
    assert store.counters["cache_errors"] > 0
    failing.error = error
    await store.aclose()


@pytest.mark.parametrize("call", ["delete_many", "set_many"])
async def test_a_cache_that_fails_in_one_step_alone_raises_nothing(call: str, error: Exception):
    class FailsOnce(InMemoryContextStore):
        left = 1

    async def method(self: FailsOnce, *given: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise error
        return await getattr(InMemoryContextStore, call)(self, *given, **options)

    setattr(FailsOnce, call, method)
    for left in (1, 2):
        cache = FailsOnce()
        store = CacheBackedContextStore(db=InMemoryContextStore(), cache=cache)
        cache.left = 10
        await store.set("a", {"v": "old"})
        cache.left = left
        await store.set("a", {"v": "new"})

        assert await store.get("a") == {"v": "new"}


async def test_a_cancellation_out_of_the_cache_reaches_the_caller_and_leaves_nothing_old():
    cache = Fails()
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=cache)
    await store.set("a", {"v": "old"})

    async def committed(*given: Any, **options: Any) -> None:
        await InMemoryContextStore.set(store._db, *given, **options)  # type: ignore[arg-type] # it is one
        cache.error = asyncio.CancelledError()

    store._db.set = committed  # type: ignore[method-assign] # the cache fails after the database has committed
    with pytest.raises(asyncio.CancelledError):
        await store.set("a", {"v": "new"})
    cache.error = None
    await InMemoryContextStore.set(cache, "a", {"v": "old"})

    assert await store.get("a") == {"v": "new"}


def calls_of(store: ContextStore) -> list[Any]:
    return [
        store.get("a"),
        store.set("a", {}),
        store.update("a", {}),
        store.delete("a"),
        store.get_many(["a", "b"]),
        store.set_many({"a": {}, "b": {}}),
        store.delete_many(["a", "b"]),
        store.compare_and_set("a", {}, expected=None),
        store.list_keys(),
    ]


async def test_a_database_s_own_errors_are_ours_and_name_the_store(failing: Any, error: Exception):
    store = CacheBackedContextStore(db=failing, cache=InMemoryContextStore())
    failing.error = error

    for call in calls_of(store):
        with pytest.raises(ContextStoreError, match="Fails") as caught:
            await call
        assert type(caught.value.__cause__) is type(error)
    failing.error = None
    assert await store.get("a") is None


async def test_a_failing_cache_is_told_once_for_each_kind_of_failure(
    failing: Any, error: Exception, caplog: pytest.LogCaptureFixture
):
    store = CacheBackedContextStore(db=InMemoryContextStore(), cache=failing)
    failing.error = error
    for number in range(5):
        await store.set(number, {})

    told = [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(told) == 1


async def test_a_shard_is_named_whatever_it_raises(failing: Any, error: Exception):
    shards = ShardManager({"only": failing})
    failing.error = error

    for call in (*calls_of(shards), shards.rebalance()):
        with pytest.raises(ContextStoreError, match="shard 'only'"):
            await call
    if isinstance(failing, Fails):
        with pytest.raises(ContextStoreError, match="shard 'only'"):
            await shards.aclose()


async def test_a_cancellation_out_of_a_store_stays_one():
    failing = Fails()
    failing.error = asyncio.CancelledError()

    for store in (ShardManager({"only": failing}), CacheBackedContextStore(db=failing, cache=InMemoryContextStore())):
        with pytest.raises(asyncio.CancelledError):
            await store.set("a", {})


async def test_adapters_and_the_registry_translate_what_a_store_of_others_raises(failing: Any, error: Exception):
    adapter = PandasContextAdapter(pd.DataFrame({"a": []}), context_store=failing)
    set_context_store(failing)
    failing.error = error

    for call in (
        adapter.add_context(COLUMN, {}),
        adapter.add_many({COLUMN: {}}),
        adapter.update_context(COLUMN, {}),
        adapter.get_context(COLUMN),
        adapter.remove_context(COLUMN),
        adapter.remove_many([COLUMN]),
        adapter.list_context_keys(),
        adapter.rename_key(COLUMN, COLUMN),
        resolver.get_context("a"),
        resolver.set_context("a", {}),
        resolver.update_context("a", {}),
        resolver.clear_context("a"),
    ):
        with pytest.raises(ContextStoreError) as caught:
            await call
        assert caught.value.__cause__ is not None


def test_the_synchronous_face_translates_what_a_store_of_others_raises(failing: Any, error: Exception):
    sync.set_context_store(failing)
    store = sync.get_context_store()
    failing.error = error

    for call in (
        lambda: store.get("a"),
        lambda: store.set("a", {}),
        lambda: store.update("a", {}),
        lambda: store.delete("a"),
        lambda: store.list_keys(),
        lambda: store.set_many([("a", {})]),
        lambda: store.delete_many(["a"]),
        lambda: sync.update_context("a", {}),
    ):
        with pytest.raises(ContextStoreError) as caught:
            call()
        assert caught.value.__cause__ is not None


async def test_a_state_store_s_error_is_ours_and_chained(failing: Any, error: Exception):
    states = ContextStateStore(failing)
    failing.error = error

    for call in (
        states.load_context("ada"),
        states.save_context(CoachContext(user_id="ada")),
        states.save_context(CoachContext(user_id="ada"), expected_version=1),
        states.delete_context("ada"),
        states.list_user_ids(),
    ):
        with pytest.raises(StateStoreError) as caught:
            await call
        assert caught.value.__cause__ is not None
