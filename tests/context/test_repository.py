"""Repositories of applications: the document's own, plain or awaited, and the one that is shipped."""

import asyncio
import copy
import functools
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside.repository import DbRepository, SyncDbRepository, adapt_repository
from agent_service.context.outside_store import OutsideStore
from agent_service.core.errors import ConfigurationError, ContextStoreError, DatabaseError
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository
from agent_service.infrastructure.database.contexts.table import engine_sessions
from tests.support.ids import steady


class Base(DeclarativeBase):
    pass


class MyContextEntity(Base):
    __tablename__ = "my_context"

    context_key: Mapped[str] = mapped_column(primary_key=True)
    user_name: Mapped[str | None]
    repo_name: Mapped[str | None] = mapped_column("repository")


class MyContextRepository:
    """Implements DbRepository using SQLAlchemy. (The document's example, unchanged.)"""

    def __init__(self, session_factory: sessionmaker[Session]) -> None:
        self._session_factory = session_factory

    def get(self, context_key: str) -> dict[str, Any] | None:
        with self._session_factory() as session:
            entity = session.get(MyContextEntity, context_key)
            if entity is None:
                return None
            return {"user_name": entity.user_name, "repo_name": entity.repo_name}  # map to dict

    def set(self, context_key: str, data: Mapping[str, Any]) -> None:
        with self._session_factory() as session:
            entity = session.get(MyContextEntity, context_key)
            if entity is None:
                entity = MyContextEntity(context_key=context_key, **data)
                session.add(entity)
            else:
                for k, v in data.items():
                    setattr(entity, k, v)
            session.commit()

    def delete(self, context_key: str) -> None:
        with self._session_factory() as session:
            entity = session.get(MyContextEntity, context_key)
            if entity is not None:
                session.delete(entity)
                session.commit()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[MyContextRepository]:
    engine = create_engine(f"sqlite:///{tmp_path / 'mine.db'}")
    Base.metadata.create_all(engine)
    yield MyContextRepository(sessionmaker(engine))
    engine.dispose()


async def test_the_documents_repository_works_unchanged(repository: MyContextRepository):
    store = CacheBackedContextStore(db=repository, cache=InMemoryContextStore())
    assert isinstance(repository, SyncDbRepository)

    await store.set("session-123", {"user_name": "alice", "repo_name": "my-repo"})
    assert await store.get("session-123") == {"user_name": "alice", "repo_name": "my-repo"}
    assert await store.update("session-123", {"repo_name": "other"}) == {"user_name": "alice", "repo_name": "other"}
    assert repository.get("session-123") == {"user_name": "alice", "repo_name": "other"}
    await store.delete("session-123")
    assert await store.get("session-123") is None
    assert await store.delete_many(["session-123"]) == 0


async def test_updates_through_a_plain_repository_lose_nothing_within_the_process(repository: MyContextRepository):
    stores = CacheBackedContextStore(db=repository, cache=InMemoryContextStore())

    await asyncio.gather(
        *(stores.update("a", {name: "x"}) for name in ("user_name", "repo_name") for _ in range(15)),
    )

    assert await stores.get("a") == {"user_name": "x", "repo_name": "x"}


async def test_what_a_repository_raises_is_the_cause_of_a_context_store_error(repository: MyContextRepository):
    store = CacheBackedContextStore(db=repository, cache=InMemoryContextStore())

    with pytest.raises(ContextStoreError, match="MyContextRepository") as caught:
        await store.set("a", {"jira_number": "PROJ-42"})

    assert isinstance(caught.value.__cause__, TypeError)


async def test_what_a_repository_cannot_do_is_said(repository: MyContextRepository):
    store = CacheBackedContextStore(db=repository, cache=InMemoryContextStore())

    with pytest.raises(ContextStoreError, match="list keys"):
        await store.list_keys()
    for key in (1, ("a", 1), None):
        with pytest.raises(ContextStoreError, match="key must be text"):
            await store.set(key, {})


async def test_plain_methods_run_in_threads_and_coroutines_on_the_loop():
    class Plain:
        def get(self, context_key: str) -> dict[str, Any]:
            return {"thread": threading.get_ident()}

        def set(self, context_key: str, data: Mapping[str, Any]) -> None: ...

        def delete(self, context_key: str) -> None: ...

    class Awaited:
        async def get(self, context_key: str) -> dict[str, Any]:
            return {"thread": threading.get_ident()}

        async def set(self, context_key: str, data: Mapping[str, Any]) -> None: ...

        async def delete(self, context_key: str) -> None: ...

    awaited = Awaited()

    assert adapt_repository(awaited) is awaited
    assert isinstance(adapt_repository(Plain()), DbRepository)
    assert await OutsideStore(awaited).get("a") == {"thread": threading.get_ident()}
    assert await OutsideStore(Plain()).get("a") != {"thread": threading.get_ident()}


class Awaited:
    """A repository of coroutines over a dictionary, to be wrapped in every way."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Any]] = {}

    async def get(self, context_key: str) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        return self.data.get(context_key)

    async def set(self, context_key: str, data: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.data[context_key] = dict(data)

    async def update(self, context_key: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.data[context_key] = self.data.get(context_key, {}) | dict(patch)
        return self.data[context_key]

    async def delete(self, context_key: str) -> None:
        await asyncio.sleep(0)
        self.data.pop(context_key, None)


class Forwards:
    """Plain methods that give what coroutines of another object give."""

    def __init__(self, inner: Awaited) -> None:
        self.inner = inner

    def get(self, context_key: str) -> Any:
        return self.inner.get(context_key)

    def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        return self.inner.set(context_key, data)

    def delete(self, context_key: str) -> Any:
        return self.inner.delete(context_key)


class Updates(Forwards):
    def update(self, context_key: str, patch: Mapping[str, Any]) -> Any:
        return self.inner.update(context_key, patch)


class Tasks(Forwards):
    """Plain methods that need the running loop."""

    def get(self, context_key: str) -> Any:
        loop = asyncio.get_running_loop()
        return loop.create_task(self.inner.get(context_key))

    def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        loop = asyncio.get_event_loop()
        return asyncio.ensure_future(self.inner.set(context_key, data), loop=loop)

    def delete(self, context_key: str) -> Any:
        loop = asyncio.get_running_loop()
        return loop.create_task(self.inner.delete(context_key))


class Partials:
    def __init__(self, inner: Awaited) -> None:
        self.get = functools.partial(inner.get)
        self.set = functools.partial(lambda repository, *given: repository.set(*given), inner)
        self.delete = functools.partial(Awaited.delete, inner)


class Called:
    def __init__(self, method: Any) -> None:
        self.method = method

    def __call__(self, *given: Any) -> Any:
        return self.method(*given)


class AwaitedCalled(Called):
    async def __call__(self, *given: Any) -> Any:
        return await self.method(*given)


class Callables:
    def __init__(self, inner: Awaited) -> None:
        self.get = AwaitedCalled(inner.get)
        self.set = Called(inner.set)
        self.delete = Called(inner.delete)


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def call(*given: Any) -> Any:
        return function(*given)

    return call


class Decorated(Awaited):
    def __init__(self, inner: Awaited) -> None:
        self.data = inner.data

    get = logged(Awaited.get)
    set = logged(Awaited.set)
    delete = logged(Awaited.delete)


class Mixed:
    """Reads plainly and writes with coroutines."""

    def __init__(self, inner: Awaited) -> None:
        self.inner = inner

    def get(self, context_key: str) -> dict[str, Any] | None:
        return self.inner.data.get(context_key)

    async def set(self, context_key: str, data: Mapping[str, Any]) -> None:
        await self.inner.set(context_key, data)

    def delete(self, context_key: str) -> Any:
        return self.inner.delete(context_key)


class Pooled(Forwards):
    """Plain methods that give futures of another pool of threads."""

    def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        future: Future[None] = Future()
        threading.Thread(target=lambda: future.set_result(self.inner.data.update({context_key: dict(data)}))).start()
        return future


@pytest.mark.parametrize(
    "kind",
    [Forwards, Updates, Tasks, Partials, Callables, Decorated, Mixed, Pooled],
    ids=lambda kind: kind.__name__,
)
async def test_whatever_a_method_gives_is_awaited_before_anything_is_cached(kind: Any):
    inner = Awaited()
    cache = InMemoryContextStore()
    store = CacheBackedContextStore(db=kind(inner), cache=cache)

    await store.set("a", {"x": 1})
    assert inner.data == {"a": {"x": 1}}
    assert await store.update("a", {"y": 2}) == {"x": 1, "y": 2}
    assert inner.data == {"a": {"x": 1, "y": 2}}
    assert await store.get("a") == await cache.get("a") == {"x": 1, "y": 2}
    inner.data["b"] = {"z": 3}
    assert await store.get("b") == {"z": 3}
    await store.delete("a")
    assert inner.data == {"b": {"z": 3}}
    assert await store.delete_many(["a", "b"]) == 1
    assert inner.data == {}


async def test_an_adapted_repository_awaits_whatever_its_methods_give():
    inner = Awaited()
    repository = adapt_repository(Forwards(inner))

    await repository.set("a", {"x": 1})

    assert await repository.get("a") == inner.data["a"] == {"x": 1}
    await repository.delete("a")
    assert inner.data == {}


async def test_a_plain_write_whose_caller_is_cancelled_is_over_before_the_cancellation_arrives():
    class Slow(Forwards):
        begun = threading.Event()
        go_on = threading.Event()

        def set(self, context_key: str, data: Mapping[str, Any]) -> None:
            self.begun.set()
            self.go_on.wait(30)
            self.inner.data[context_key] = dict(data)

    inner = Awaited()
    inner.data["a"] = {"v": "old"}
    cache = InMemoryContextStore()
    store = CacheBackedContextStore(db=Slow(inner), cache=cache)
    writing = asyncio.create_task(store.set("a", {"v": "new"}))
    await asyncio.to_thread(Slow.begun.wait, 30)
    writing.cancel()
    reading = asyncio.create_task(store.get("a"))
    done, _ = await asyncio.wait({reading}, timeout=60)
    Slow.go_on.set()
    await asyncio.wait({writing})

    assert done == {reading}
    assert writing.cancelled()
    assert inner.data["a"] == {"v": "new"}
    assert await store.get("a") == {"v": "new"}


@pytest.mark.parametrize("thing", [object(), {}, Awaited], ids=steady)
def test_an_object_that_is_no_repository_is_refused(thing: Any):
    for refuse in (OutsideStore, adapt_repository):
        with pytest.raises(ContextStoreError, match="get, set and delete"):
            refuse(thing)


async def test_a_repository_that_offers_a_version_gets_compare_and_set_between_processes():
    class Versioned(Awaited):
        """What a table with a version column would do; ``data`` is the table that other processes write, too."""

        def __init__(self) -> None:
            super().__init__()
            self.versions: dict[str, int] = {}

        async def set(self, context_key: str, data: Mapping[str, Any]) -> None:
            await super().set(context_key, data)
            self.versions[context_key] = self.versions.get(context_key, 0) + 1

        async def get_versioned(self, context_key: str) -> tuple[dict[str, Any], int] | None:
            found = self.data.get(context_key)
            version = self.versions.get(context_key, 0)
            await asyncio.sleep(0)
            return None if found is None else (found, version)

        async def set_versioned(self, context_key: str, data: Mapping[str, Any], expected_version: int | None) -> bool:
            present = self.versions.get(context_key) if context_key in self.data else None
            if present != expected_version:
                return False
            self.data[context_key] = dict(data)
            self.versions[context_key] = self.versions.get(context_key, 0) + 1
            return True

        update = None  # type: ignore[assignment] # so that the version has to do

    repository = Versioned()
    # Of copies over the same tables, so each with locks of its own, as processes have.
    stores = [OutsideStore(copy.copy(repository)) for _ in range(5)]

    created = await asyncio.gather(*(each.compare_and_set("a", {"v": 1}, expected=None) for each in stores))
    changed = await asyncio.gather(*(each.compare_and_set("a", {"v": 2}, expected={"v": 1}) for each in stores))
    await asyncio.gather(*(stores[n % 5].update("a", {f"field{n}": n}) for n in range(30)))

    assert sorted(created) == sorted(changed) == [False] * 4 + [True]
    assert repository.data["a"] == {"v": 2, **{f"field{n}": n for n in range(30)}}
    backed = CacheBackedContextStore(db=repository, cache=InMemoryContextStore())
    assert await backed.compare_and_set("a", {"v": 3}, expected={"v": 2}) is True
    assert await backed.get("a") == {"v": 3}


async def test_a_repository_that_keeps_less_is_read_again_before_its_context_is_cached():
    class Forgetful:
        restricts_keys = True

        def __init__(self) -> None:
            self.data: dict[str, dict[str, Any]] = {}

        async def get(self, context_key: str) -> dict[str, Any] | None:
            return self.data.get(context_key)

        async def set(self, context_key: str, data: Mapping[str, Any]) -> None:
            self.data[context_key] = {"user_name": data.get("user_name")}

        async def delete(self, context_key: str) -> None:
            self.data.pop(context_key, None)

    cache = InMemoryContextStore()
    store = CacheBackedContextStore(db=Forgetful(), cache=cache)
    await store.set("a", {"user_name": "alice", "password": "hunter2"})

    assert await cache.get("a") == await store.get("a") == {"user_name": "alice"}
    assert await store.update("a", {"password": "x"}) == {"user_name": "alice"}


# -- the shipped repository


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture(params=["entity", "json"])
def shipped(request: pytest.FixtureRequest, engine: AsyncEngine) -> SqlContextRepository:
    if request.param == "entity":
        return SqlContextRepository(engine_sessions(engine), model=MyContextEntity)
    return SqlContextRepository(engine_sessions(engine), table="contexts")


async def test_the_shipped_repository_is_one_and_keeps_contexts(shipped: SqlContextRepository):
    store: ContextStore = CacheBackedContextStore(db=shipped, cache=InMemoryContextStore())
    assert isinstance(shipped, DbRepository)

    assert await store.get("a") is None
    await store.set("a", {"user_name": "alice", "repo_name": "one"})
    assert await store.update("a", {"repo_name": "two"}) == {"user_name": "alice", "repo_name": "two"}
    assert await shipped.get("a") == await store.get("a") == {"user_name": "alice", "repo_name": "two"}
    await store.set("a", {"user_name": "bob", "repo_name": None})
    assert await store.get("a") == {"user_name": "bob", "repo_name": None}
    assert await store.delete_many(["a", "b"]) == 1
    assert await shipped.get("a") is None


async def test_updates_of_the_shipped_repository_are_atomic_without_a_lock_of_the_process(
    shipped: SqlContextRepository,
):
    stores = [OutsideStore(copy.copy(shipped)) for _ in range(10)]

    await asyncio.gather(*(each.update("a", {("user_name", "repo_name")[n % 2]: "x"}) for n, each in enumerate(stores)))

    assert await shipped.get("a") == {"user_name": "x", "repo_name": "x"}


async def test_an_entity_refuses_a_field_it_has_no_column_for(engine: AsyncEngine):
    repository = SqlContextRepository(engine_sessions(engine), model=MyContextEntity)

    with pytest.raises(ContextStoreError, match=r"jira.*user_name, repo_name") as caught:
        await OutsideStore(repository).set("a", {"jira": 1})

    assert isinstance(caught.value.__cause__, DatabaseError)
    assert await repository.get("a") is None


class NoKey(Base):
    __tablename__ = "no_key"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("model", [object, NoKey, Base, "MyContextEntity"])
def test_a_model_that_cannot_be_one_is_refused(model: Any):
    with pytest.raises(ConfigurationError):
        SqlContextRepository(engine_sessions(create_async_engine("sqlite+aiosqlite://")), model=model)
