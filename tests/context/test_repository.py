"""Repositories of applications: the document's own, plain or awaited, and the one that is shipped."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agent_service.context.cache_backed import CacheBackedContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.repository import DbRepository, RepositoryStore, SyncDbRepository, adapt_repository
from agent_service.core.errors import ConfigurationError, ContextStoreError, DatabaseError
from agent_service.infrastructure.database.context_repository import SqlContextRepository
from agent_service.infrastructure.database.keyvalue import engine_sessions


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
    assert await RepositoryStore(awaited).get("a") == {"thread": threading.get_ident()}
    assert await RepositoryStore(Plain()).get("a") != {"thread": threading.get_ident()}


def test_an_object_that_is_no_repository_is_refused():
    class Mixed:
        async def get(self, context_key: str) -> None: ...

        def set(self, context_key: str, data: Mapping[str, Any]) -> None: ...

        def delete(self, context_key: str) -> None: ...

    for thing in (object(), {}, Mixed()):
        with pytest.raises(ContextStoreError):
            RepositoryStore(thing)  # type: ignore[arg-type] # that is the point


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
    stores = [RepositoryStore(shipped) for _ in range(10)]

    await asyncio.gather(*(each.update("a", {("user_name", "repo_name")[n % 2]: "x"}) for n, each in enumerate(stores)))

    assert await shipped.get("a") == {"user_name": "x", "repo_name": "x"}


async def test_an_entity_refuses_a_field_it_has_no_column_for(engine: AsyncEngine):
    repository = SqlContextRepository(engine_sessions(engine), model=MyContextEntity)

    with pytest.raises(ContextStoreError, match=r"jira.*user_name, repo_name") as caught:
        await RepositoryStore(repository).set("a", {"jira": 1})

    assert isinstance(caught.value.__cause__, DatabaseError)
    assert await repository.get("a") is None


class NoKey(Base):
    __tablename__ = "no_key"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("model", [object, NoKey, Base, "MyContextEntity"])
def test_a_model_that_cannot_be_one_is_refused(model: Any):
    with pytest.raises(ConfigurationError):
        SqlContextRepository(engine_sessions(create_async_engine("sqlite+aiosqlite://")), model=model)
