"""Time to live, listings by prefix, and changes in the caller's transaction, in a database. On both engines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from agent_service.context.database import DatabaseContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.core.errors import ContextStoreError, SessionValueError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.database import CleanupMetrics, cleanup_once, run_cleanup
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import expire_contexts
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.metrics.reading import read
from tests.context.test_database import pass_time
from tests.support.depth import examples
from tests.support.waiting import until


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(database_url)
    await manager.prepare()
    yield manager
    await manager.close()


@pytest.fixture
def store(database: DatabaseManager) -> DatabaseContextStore:
    return DatabaseContextStore(session_factory=database.session)


async def wait(database: DatabaseManager, seconds: float) -> None:
    async with database.session() as db:
        await pass_time(db, seconds)


async def stored(database: DatabaseManager) -> int:
    async with database.session() as db:
        count: int = (await db.execute(text("SELECT count(*) FROM agent_service_context_store"))).scalar_one()
    return count


async def test_a_default_time_to_live_starts_again_with_each_change(database: DatabaseManager) -> None:
    store = DatabaseContextStore(session_factory=database.session, ttl=60)
    await store.set("a", {"n": 1})
    await store.set("kept", {"n": 1})
    await wait(database, 40)
    await store.update("kept", {"m": 2})
    await wait(database, 40)

    assert await store.get("a") is None
    assert await store.get("kept") == {"n": 1, "m": 2}


async def test_an_expired_entry_counts_as_absent_everywhere_until_it_is_removed(
    database: DatabaseManager, store: DatabaseContextStore
) -> None:
    for key in ("a", "b", "c", ("t", 1)):
        await store.set(key, {"n": 1}, ttl=30)
    await wait(database, 60)

    assert await store.list_keys() == await store.keys_under(("t",)) == []
    assert await store.read_to_move("a") is None
    assert await store.compare_and_set("a", {"n": 2}, expected=None) is True
    assert await store.update("b", {"m": 2}) == {"m": 2}
    assert await stored(database) == 4
    assert await store.remove_expired(1) == 1
    assert await expire_contexts(database) == 1
    assert await stored(database) == 2
    assert await store.get_many(["a", "b"]) == {"a": {"n": 2}, "b": {"m": 2}}
    await wait(database, 1_000)
    assert await store.remove_expired() == 0
    with pytest.raises(ContextStoreError, match="limit"):
        await store.remove_expired(0)


async def test_a_key_that_moves_takes_its_time_along(database: DatabaseManager, store: DatabaseContextStore) -> None:
    other = InMemoryContextStore()
    await store.set("a", {"n": 1}, ttl=60)
    await store.set("b", {"n": 2})

    await ShardManager({"memory": other}, previous={"database": store}).rebalance()

    left: dict[str, Any] = {key: await other.read_to_move(key) for key in ("a", "b")}
    assert left["b"] == ({"n": 2}, NEVER)
    assert left["a"] is not None
    assert left["a"][0] == {"n": 1}
    assert 0 < left["a"][1] <= 60
    assert await stored(database) == 0


async def test_one_cleanup_counts_what_it_did(database: DatabaseManager, store: DatabaseContextStore) -> None:
    await store.set("a", {"n": 1}, ttl=30)
    await store.set("b", {"n": 1})
    await wait(database, 60)

    first, second = await cleanup_once(database=database), await cleanup_once(database=database)

    assert (first.expired_contexts, second.expired_contexts) == (1, 0)
    assert (first.completed, first.purged) == (0, 0)
    assert await store.list_keys() == ["b"]


async def test_a_schedule_counts_the_contexts_that_it_removed(
    database: DatabaseManager, store: DatabaseContextStore
) -> None:
    await store.set("a", {"n": 1}, ttl=30)
    await wait(database, 60)
    before, counted = read()["cleanup_expired_contexts"][()], CleanupMetrics()

    task = asyncio.create_task(run_cleanup(interval=60, metrics=counted, database=database))
    await until(lambda: counted.last_success is not None)
    task.cancel()
    await asyncio.wait([task])
    after = read()["cleanup_expired_contexts"][()]

    assert counted.expired_contexts == 1
    assert isinstance(before, int | float)
    assert after == before + 1


async def test_a_table_without_the_column_works_and_refuses_a_time_to_live(database: DatabaseManager) -> None:
    async with database.session() as db:
        await db.execute(text("DROP INDEX agent_service_ix_context_store_expiry"))
        await db.execute(text("ALTER TABLE agent_service_context_store DROP COLUMN expires_at"))
    store = DatabaseContextStore(session_factory=database.session)

    await store.set("a", {"n": 1})
    await store.update("a", {"m": 2})

    assert await store.get("a") == {"n": 1, "m": 2}
    assert await store.list_keys() == ["a"]
    assert await store.compare_and_set("a", {}, expected={"n": 1}) is True
    assert await expire_contexts(database) == 0
    for call in (store.set("b", {}, ttl=60), store.compare_and_set("a", {}, expected={}, ttl=60)):
        with pytest.raises(ContextStoreError, match=r"has no column expires_at.*agent-service db upgrade"):
            await call
    assert await store.delete_many(["a", "b"]) == 1


KEYS: list[Any] = [
    ("app", "ada"), ("app", "ada", 1), ("app", "ada", "1"), ("app", "ada", 1, 2), ("app", "adam", 1), ("app",), "app",
    ("app", "a,d", 1), ("app", "Ådå", 1), ("app", "ada", "x" * 2000), ("app", "ada", "y" * 2000, "z"), ("ap", "p"),
]  # fmt: skip


async def test_keys_are_listed_by_the_beginning_of_a_tuple(store: DatabaseContextStore) -> None:
    await store.set_many([(key, {}) for key in KEYS])

    def longer(prefix: tuple[Any, ...]) -> set[Any]:
        fitting = (key for key in KEYS if isinstance(key, tuple) and len(key) > len(prefix))
        return {key for key in fitting if list(map(repr, key[: len(prefix)])) == list(map(repr, prefix))}

    for prefix in ((), ("app",), ("app", "ada"), ("app", "ada", 1), ("app", "ada", "1"), ("a",), ("app", "a")):
        found = await store.keys_under(prefix)
        assert set(found) == longer(prefix)
        assert len(found) == len(longer(prefix))
        pages, after = [], None
        while page := await store.keys_under(prefix, after=after, limit=2):
            assert len(page) <= 2
            pages += page
            after = page[-1]
        assert pages == found


async def test_bad_arguments_of_a_listing_are_refused(store: DatabaseContextStore) -> None:
    for arguments, complaint in (
        ({"prefix": "app"}, "prefix must be a tuple"),
        ({"prefix": ("app",), "limit": 0}, "limit"),
        ({"prefix": ("app",), "after": ("other", 1)}, "after"),
        ({"prefix": ([],)}, "hashable"),
    ):
        with pytest.raises(ContextStoreError, match=complaint):
            await store.keys_under(**arguments)


@settings(max_examples=examples(5, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(
        st.lists(st.one_of(st.text(max_size=3), st.integers(-2, 2), st.booleans()), min_size=1, max_size=3).map(tuple),
        max_size=12,
    ),
    size=st.integers(1, 2),
)
async def test_a_listing_is_what_a_look_at_every_key_finds(
    store: DatabaseContextStore, keys: list[tuple[Any, ...]], size: int
) -> None:
    await store.delete_many(await store.list_keys())
    await store.set_many([(key, {}) for key in keys])
    prefix = keys[0][:size] if keys else ()

    found = await store.keys_under(prefix)

    told_apart = {tuple(map(repr, key)) for key in keys}
    wanted = {key for key in told_apart if len(key) > len(prefix) and key[: len(prefix)] == tuple(map(repr, prefix))}
    assert {tuple(map(repr, key)) for key in found} == wanted


async def test_a_listing_reads_along_the_index(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    store = DatabaseContextStore(session_factory=database.session)
    await store.set_many({("other", number): {} for number in range(5_000)})
    await store.set_many({("app", number): {} for number in range(50)})
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        await store.keys_under(("app",), limit=10)
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)

    async with database.session() as db:
        await db.execute(text("ANALYZE agent_service_context_store"))
        connection = await db.connection()
        plans = [
            "\n".join(str(row[0]) for row in (await connection.exec_driver_sql(f"EXPLAIN {query}", given)).all())
            for query, given in statements
            if "context_store" in query and "SELECT" in query and "attname" not in query
        ]
    assert len(plans) == 2
    assert all("prefix" in plan and "Seq Scan" not in plan for plan in plans), plans
    assert "Sort" not in plans[0]
    await database.close()


@pytest.mark.parametrize("savepoints", [True, False], ids=["savepoints", "none"])
async def test_contexts_change_in_the_transaction_of_an_append(
    database: DatabaseManager, store: DatabaseContextStore, savepoints: bool
) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))
    await store.set("kept", {"n": 1})

    async def turn(number: int, *, fail: bool) -> None:
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user", "content": str(number)})
            bound = store.within(db, savepoints=savepoints)
            await bound.update(("state", "ada"), {f"n{number}": number})
            await bound.set_many({"a": {"n": number}, "b": {"n": number}})
            assert await bound.compare_and_set("kept", {"n": 2}, expected={"n": 99}) is False
            assert await bound.compare_and_set("absent", {}, expected={}) is False
            assert await bound.delete_many(["b", "absent"]) == 1
            assert await bound.keys_under(("state",)) == [("state", "ada")]
            assert set(await bound.list_keys()) == {"kept", "a", ("state", "ada")}
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        await turn(1, fail=True)
    before = await store.list_keys()
    await turn(2, fail=False)

    assert before == ["kept"]
    assert await store.get_many(["a", "b", ("state", "ada"), "kept"]) == {
        "a": {"n": 2},
        ("state", "ada"): {"n2": 2},
        "kept": {"n": 1},
    }
    async with database.session() as db:
        assert [each.content for each in await SessionRepository(db).get_messages(session.id)] == ["2"]


async def test_an_error_of_a_bound_store_leaves_the_transaction_usable(
    database: DatabaseManager, store: DatabaseContextStore
) -> None:
    async with database.session() as db:
        await db.execute(text("INSERT INTO agent_service_context_store (key, value) VALUES ('broken', 'no JSON')"))
        bound = store.within(db)
        await bound.set("a", {"n": 1})
        with pytest.raises(ContextStoreError):
            await bound.update("broken", {"n": 1})
        await bound.update("a", {"m": 2})

    assert await store.get("a") == {"n": 1, "m": 2}
    assert await stored(database) == 2


async def test_concurrent_transactions_with_a_bound_store_lose_nothing(
    database: DatabaseManager, store: DatabaseContextStore
) -> None:
    async def add(number: int) -> None:
        async with database.session() as db:
            await store.within(db, savepoints=number % 2 == 0).update("counted", {f"n{number}": number})

    await asyncio.gather(*map(add, range(20)))

    assert await store.get("counted") == {f"n{number}": number for number in range(20)}


async def test_a_bound_store_makes_its_table_in_the_callers_transaction(database: DatabaseManager) -> None:
    store = DatabaseContextStore(session_factory=database.session, table="made_within")

    async with database.session() as db:
        await store.within(db).set("a", {"n": 1})
        await db.rollback()
    async with database.session() as db:
        await store.within(db).set("b", {"n": 2}, ttl=60)

    assert await store.list_keys() == ["b"]
    assert await store.keys_under(()) == []


async def test_only_a_session_can_be_joined(store: DatabaseContextStore) -> None:
    with pytest.raises(SessionValueError, match="db"):
        store.within("db")  # type: ignore[arg-type]
