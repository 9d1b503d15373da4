"""A replica one second behind: whatever keeps what it reads keeps nothing older than what was invalidated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.outside_store import as_store
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.database.connection import close_database, get_database, get_session
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from tests.outbox.test_run import running
from tests.servers.postgres import PostgresServer
from tests.servers.standby import running_primary_and_standby
from tests.support.outbox import NAMESPACE, configure, until_drained

Pair = tuple[PostgresServer, PostgresServer]
Read = Callable[[str], Awaitable[int]]


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with running_primary_and_standby(lag="1s") as pair:
        yield pair


@pytest.fixture
async def lagging(
    servers: Pair, redis_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[None]:
    """The configured database with a replica a second behind, and Redis."""
    primary, replica = (each.database_url("postgres") for each in servers)
    security = str(getattr(request, "param", False))
    configure(monkeypatch, database_url=primary, database_replica_url=replica, redis_url=redis_url)
    configure(monkeypatch, db_row_security=security, redis_timeout="10")
    await get_database().upgrade()
    async with get_session() as db:
        await db.execute(text("DELETE FROM agent_service_context_store"))
        db.add_all([ContextEntry(key=f"k{n}", value="0") for n in range(20)])
        await db.flush()
    async with get_session() as db:
        position = (await db.execute(text("SELECT pg_current_wal_lsn()::text"))).scalar_one()
    async with asyncio.timeout(30):
        while True:
            async with get_session(readonly=True) as db:
                if (await db.execute(text(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"))).scalar_one():
                    break
            await asyncio.sleep(0.05)
    yield
    await close_cache()
    assert get_database().get_metrics()["in_use"] == 0
    await close_database()


async def stored(key: str, db: AsyncSession | None = None) -> int:
    """Read where reads may lag."""
    statement = text("SELECT value FROM agent_service_context_store WHERE key = :key")
    if db is not None:
        return int((await db.execute(statement, {"key": key})).scalar_one())
    async with get_session(readonly=True) as own:
        return int((await own.execute(statement, {"key": key})).scalar_one())


async def write(key: str, value: int, **invalidated: list[str]) -> None:
    async with get_session() as db:
        await db.execute(update(ContextEntry).where(ContextEntry.key == key).values(value=str(value)))
        invalidate_in(db, namespace=NAMESPACE, **invalidated or {"keys": [key]})


@cached(namespace=NAMESPACE, key="{key}", key_prefix="read")
async def by_decorator(key: str) -> int:
    return await stored(key)


@cached(namespace=NAMESPACE, key="{key}", key_prefix="handed", ignore=("db",))
async def by_session(key: str, db: AsyncSession) -> int:
    return await stored(key, db)


async def by_handed_session(key: str) -> int:
    async with get_session(readonly=True) as db:
        await stored(key, db)  # its transaction began on the replica
        return await by_session(key, db)


async def by_object_of_a_handed_session(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE)
    async with get_session(readonly=True) as db:
        lagging = await db.get_one(ContextEntry, key)  # the session keeps the object, and would give it again

        async def load() -> int:
            return int((await db.get_one(ContextEntry, key)).value)

        found = await cache.get_or_load(key, load)
        assert lagging.key == key
    return found


async def by_query_of_a_handed_session(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE)
    entry = select(ContextEntry).where(ContextEntry.key == key)
    async with get_session(readonly=True) as db:
        lagging = (await db.scalars(entry)).one()

        async def load() -> int:
            return int((await db.scalars(entry)).one().value)

        found = await cache.get_or_load(key, load)
        assert lagging.key == key
    return found


async def by_get_or_load(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE)
    return await cache.get_or_load(key, lambda: stored(key))


async def by_near_cache(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE, l1=True)
    return await cache.get_or_load(key, lambda: stored(key))


async def under_a_lock(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE)
    return await cache.get_or_load(key, lambda: stored(key), lock="distributed")


async def by_get_or_load_many(key: str) -> int:
    async def load(keys: list[str]) -> Mapping[str, int]:
        return {each: await stored(each) for each in keys}

    cache: ICache[int] = await get_cache(NAMESPACE)
    return (await cache.get_or_load_many([key, "k19"], load))[key]


async def refreshed(key: str) -> int:
    cache: ICache[int] = await get_cache(NAMESPACE)
    return await cache.get_or_load(key, lambda: stored(key), ttl=60, refresh_at=0.0001)


READS: list[Read] = [
    by_decorator,
    by_handed_session,
    by_object_of_a_handed_session,
    by_query_of_a_handed_session,
    by_get_or_load,
    by_near_cache,
    under_a_lock,
    by_get_or_load_many,
    refreshed,
]


@pytest.mark.parametrize("read", READS, ids=lambda each: each.__name__)
async def test_what_is_loaded_after_an_invalidation_is_not_older_than_its_commit(lagging: None, read: Read):
    assert await read("k1") == 0
    await write("k1", 7, patterns=["*k1*"])
    lags = await stored("k1") == 0

    assert await drain_outbox() == 1
    assert await read("k1") == 7
    await asyncio.sleep(0.05)
    assert await read("k1") == 7
    assert lags


@pytest.mark.parametrize("lagging", [True], indirect=True, ids=["row security"])
@pytest.mark.parametrize("read", [by_decorator, by_handed_session], ids=lambda each: each.__name__)
async def test_with_row_level_security_it_is_not_older_either(lagging: None, read: Read):
    await test_what_is_loaded_after_an_invalidation_is_not_older_than_its_commit(None, read)


class Repository:
    """A repository of one's own that reads where reads may lag."""

    async def get(self, key: str) -> dict[str, Any] | None:
        return {"n": await stored(key)}

    async def set(self, key: str, value: Mapping[str, Any]) -> None:
        async with get_session() as db:
            changed = update(ContextEntry).where(ContextEntry.key == key).values(value=str(value["n"]))
            await db.execute(changed)

    async def delete(self, key: str) -> None:
        await self.set(key, {"n": -1})


class Rereading(Repository):
    restricts_keys = True  # so what is kept is read after a write


@pytest.mark.parametrize("repository", [Repository, Rereading])
async def test_a_context_store_caches_nothing_that_lags(lagging: None, repository: type[Repository]):
    store = CacheBackedContextStore(repository(), CacheContextStore(await get_cache(NAMESPACE)))
    other = repository()
    assert await store.get("k1") == {"n": 0}
    await store.set("k1", {"n": 1})
    written = await store.get("k1")
    await store.delete("k1")
    deleted = await store.get("k1")
    await other.set("k2", {"n": 5})
    first = await store.get("k2")
    many = await store.get_many(["k2", "k3"])

    assert (written, deleted, first) == ({"n": 1}, {"n": -1}, {"n": 5})
    assert many == {"k2": {"n": 5}, "k3": {"n": 0}}


async def test_a_change_of_what_is_stored_begins_with_what_is_stored(lagging: None):
    store = as_store(Repository())
    for n in range(1, 4):
        await store.set("k1", {"n": n})
        assert await store.update("k1", {"more": n}) == {"n": n, "more": n}
        assert await store.compare_and_set("k1", {"n": n}, expected={"n": n})


async def test_other_reads_still_go_to_the_replica(lagging: None):
    await write("k1", 7)
    during = []

    async def load() -> int:
        during.append(await stored("k1"))
        return 0

    await (await get_cache(NAMESPACE)).get_or_load("other", load)
    afterwards = await stored("k1")

    assert (during, afterwards) == ([7], 0)


async def run_history(writes: int) -> None:
    """Write, have the invalidation delivered, read: again and again, on many keys at once."""
    reading = True
    older = 0

    async def write_and_read(key: str) -> None:
        nonlocal older
        for value in range(1, writes + 1):
            await write(key, value, keys=[key, f"read:by_decorator:{key}", f"handed:by_session:{key}"])
            await until_drained()
            for read in (by_decorator, by_get_or_load, by_handed_session):
                found = await read(key)
                older += found != value

    async def read_all() -> None:
        n = 0
        while reading:
            n += 1
            await READS[n % len(READS)](f"k{n % 20}")
            await asyncio.sleep(0)

    async with running(interval=0.05):
        traffic = [asyncio.create_task(read_all()) for _ in range(4)]
        await asyncio.gather(*(write_and_read(f"k{n}") for n in range(10)))
        reading = False
        await asyncio.gather(*traffic)

    assert older == 0


async def test_no_read_after_a_delivered_invalidation_is_older_than_it(lagging: None):
    await run_history(writes=3)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_no_read_after_thousands_of_delivered_invalidations_is_older(lagging: None):
    await run_history(writes=400)
