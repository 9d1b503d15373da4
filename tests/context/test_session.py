"""Session contexts as a store: the same data as the repository's, by session id."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.session import SessionContextStore
from agent_service.core.errors import ContextStoreError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.ids import steady


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(database_url)
    await manager.prepare()
    yield manager
    await manager.close()


@pytest.fixture
def store(database: DatabaseManager) -> SessionContextStore:
    return SessionContextStore(database.session)


async def new_session(database: DatabaseManager, tenant_id: str = "", **context: Any) -> UUID:
    async with database.session() as db:
        session = await SessionRepository(db, tenant_id).create(Session(user_id="u", context=context))
        return session.id


async def test_the_store_and_the_repository_see_the_same(store: SessionContextStore, database: DatabaseManager):
    id_ = await new_session(database, city="Rome")
    assert await store.get(id_) == await store.get(str(id_)) == {"city": "Rome"}

    assert await store.update(id_, {"n": 1, "none": None}, drop_none=True) == {"city": "Rome", "n": 1}
    async with database.session() as db:
        assert await SessionRepository(db).update_session_context(id_, {"by": "repository"}) == {
            "city": "Rome",
            "n": 1,
            "by": "repository",
        }
    await store.set(id_, {"whole": [1, {"a": None}]})

    assert await store.get_many([id_, uuid4()]) == {id_: {"whole": [1, {"a": None}]}}
    assert await store.list_keys() == [id_]
    await store.delete(str(id_))
    assert await store.get(id_) == {}


async def test_an_unknown_session_reads_as_none_and_cannot_be_written(
    store: SessionContextStore, database: DatabaseManager
):
    known, unknown = await new_session(database), uuid4()
    await store.delete(unknown)

    assert await store.get(unknown) is None
    assert await store.delete_many([known, unknown]) == 1
    for call in (
        store.set(unknown, {}),
        store.update(unknown, {}),
        store.compare_and_set(unknown, {}, expected=None),
        store.set_many({known: {"x": 1}, unknown: {}}),
    ):
        with pytest.raises(ContextStoreError, match=str(unknown)) as caught:
            await call
        assert isinstance(caught.value.__cause__, SessionNotFoundError)
    assert await store.get(known) == {}


async def test_tenants_do_not_see_one_another(store: SessionContextStore, database: DatabaseManager):
    id_ = await new_session(database, "other", secret=1)

    assert await store.get(id_) is None
    assert await store.list_keys() == []
    assert await SessionContextStore(database.session, tenant_id="other").get(id_) == {"secret": 1}


async def test_tenants_may_share_a_cache_and_a_session_has_one_copy(
    store: SessionContextStore, database: DatabaseManager
):
    id_, cache = await new_session(database, "other", secret=1), InMemoryContextStore()
    theirs = CacheBackedContextStore(SessionContextStore(database.session, tenant_id="other"), cache)
    ours = CacheBackedContextStore(store, cache)
    third = CacheBackedContextStore(SessionContextStore(database.session, tenant_id="third"), cache)

    assert await theirs.get(id_) == {"secret": 1}
    assert await theirs.get_many([id_, str(id_)]) == {id_: {"secret": 1}, str(id_): {"secret": 1}}
    for other in (ours, third):
        assert await other.get(id_) is None
        assert await other.get_many([id_, str(id_)]) == {}
        with pytest.raises(ContextStoreError):
            await other.get(("other", id_))
    await theirs.set(id_, {"secret": 2})
    assert await theirs.get(str(id_)) == {"secret": 2}


async def test_concurrent_updates_lose_nothing(store: SessionContextStore, database: DatabaseManager):
    id_ = await new_session(database)

    await asyncio.gather(*(store.update(id_, {f"field{n}": n}) for n in range(30)))

    assert await store.get(id_) == {f"field{n}": n for n in range(30)}


async def test_compare_and_set(store: SessionContextStore, database: DatabaseManager):
    id_ = await new_session(database, version=1)

    assert await store.compare_and_set(id_, {"version": 2}, expected={"version": 3}) is False
    assert await store.compare_and_set(id_, {"version": 2}, expected=None) is False
    assert await store.compare_and_set(id_, {"version": 2}, expected={"version": 1}) is True
    assert await store.get(id_) == {"version": 2}


@pytest.mark.parametrize("key", ["no uuid", 1, None, ("a",), [], "\ud800"], ids=ascii)
async def test_a_key_that_is_no_session_id_is_refused(store: SessionContextStore, key: Any):
    for call in (store.get(key), store.set(key, {}), store.get_many([key]), store.delete(key)):
        with pytest.raises(ContextStoreError, match="key must be a UUID"):
            await call


@pytest.mark.parametrize("value", [{"a": "\x00"}, {"a": (1,)}, {"a": object()}, {1: 2}, []], ids=steady)
async def test_a_value_that_sessions_cannot_keep_is_refused(
    store: SessionContextStore, database: DatabaseManager, value: Any
):
    id_ = await new_session(database, old=1)

    for call in (store.set(id_, value), store.update(id_, value), store.set(id_, {}, ttl=5)):
        with pytest.raises(ContextStoreError) as caught:
            await call
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, SessionValueError)
    assert await store.get(id_) == {"old": 1}
