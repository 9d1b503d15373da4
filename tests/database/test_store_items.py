"""Items of stores in the database: row-level security, revisions, isolation, and what a batch is."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from agent_service.core.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.items.joined import JoinedItems
from agent_service.infrastructure.database.items.operations import Get, ListNamespaces, Put, Search
from agent_service.infrastructure.database.items.places import end_of, read_namespace, write_namespace
from agent_service.infrastructure.database.items.reads import get_items
from agent_service.infrastructure.database.items.transactions import ItemTransactions
from agent_service.infrastructure.database.maintenance.cleanup import cleanup_once
from agent_service.infrastructure.database.naming.names import FRAMEWORKS
from tests.context.test_database import pass_time
from tests.database.test_row_security import owner, service  # noqa: F401 - fixtures
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer

LABELS = st.text(st.characters(exclude_characters="\x00.", exclude_categories=["Cs"]), min_size=1, max_size=3)
PATHS = st.lists(LABELS | st.sampled_from(["\x01", "\x02", "\x02\x03", "a"]), max_size=3).map(tuple)


@given(left=PATHS, right=PATHS)
def test_namespaces_sort_as_their_text_does_and_come_back(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    texts = [write_namespace(each).encode() for each in (left, right)]

    assert read_namespace(texts[0].decode()) == left
    assert (texts[0] < texts[1]) is (left < right)
    if left:
        below = texts[0] <= texts[1] < end_of(texts[0].decode()).encode()
        assert below is (right[: len(left)] == left)


async def test_row_level_security_keeps_tenants_apart(service: DatabaseManager, owner: DatabaseManager) -> None:  # noqa: F811
    acme, other = ItemTransactions("acme"), ItemTransactions("other")
    await acme.run(service, [Put.of(("a",), "k", {"n": 1}, ttl=60, vectors=(("0", [1.0]),))])
    await other.run(service, [Put.of(("a",), "k", {"n": 2})])

    for tenant, seen in ((acme, 1), (other, 2)):
        (item,) = await tenant.run(service, [Get.of(("a",), "k", refresh=True)])
        assert item is not None
        assert item.value == {"n": seen}  # type: ignore[union-attr]
    async with service.session() as db:  # names no tenant
        for table in ("items", "vectors"):
            count = text(f"SELECT count(*) FROM agent_service_store_{table}")
            assert (await db.execute(count)).scalar_one() == 0
    async with owner.session() as db:
        await pass_time(db, 120, "agent_service_store_items")
    assert (await cleanup_once(database=service)).expired_items == 1
    await owner.switch_row_security(on=False)


async def test_policies_of_items_are_in_force_where_those_of_sessions_are(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    in_force = text("SELECT relname FROM pg_class WHERE relrowsecurity ORDER BY relname")
    try:
        await database.downgrade("agent_service_0012")
        await database.switch_row_security(on=True)
        await database.upgrade()
        async with database.session() as db:
            found = list(await db.scalars(in_force))
        assert found == [*sorted(f"agent_service_{each}" for each in FRAMEWORKS), "session_messages", "sessions"]
        await database.switch_row_security(on=False)
        async with database.session() as db:
            assert list(await db.scalars(in_force)) == []
    finally:
        await database.close()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_database_of_stricter_isolation_refuses_nothing(postgres_url: str, level: str) -> None:
    database = DatabaseManager(postgres_url, isolation_level=level)
    items = ItemTransactions()

    await asyncio.gather(*(items.run(database, [Put.of(("a",), "k", {"n": n})]) for n in range(12)))

    assert len(await items.run(database, [Search.of(())])) == 1
    await database.close()


async def test_batches_that_meet_in_opposite_order_all_happen(database: DatabaseManager) -> None:
    items = ItemTransactions()

    async def swap(n: int) -> None:
        keys = ["a", "b", "c"] if n % 2 else ["c", "b", "a"]
        await items.run(database, [Put.of(("x",), keys[0], None), *(Put.of(("x",), key, {"n": n}) for key in keys[1:])])

    await asyncio.gather(*map(swap, range(30)))

    (found,) = await items.run(database, [Search.of(())])
    assert {each.key for each in found} <= {"a", "b", "c"}  # type: ignore[union-attr]
    assert len({each.value["n"] for each in found if each.key == "b"}) == 1  # type: ignore[union-attr]


async def test_a_reader_waits_for_no_writer_of_the_same_item(postgres_url: str) -> None:
    database, items = DatabaseManager(postgres_url), ItemTransactions()
    await items.run(database, [Put.of(("a",), "k", {"n": 1}, ttl=60)])
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service_store_items SET ttl = 61"))

        async with asyncio.timeout(30):
            (item,) = await items.run(database, [Get.of(("a",), "k", refresh=True)])

    assert item is not None
    await database.close()


async def test_an_outage_is_told_to_every_caller_and_is_over_afterwards(database: DatabaseManager) -> None:
    nowhere = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    places = [nowhere]
    joined = JoinedItems(ItemTransactions(), lambda: places[-1])

    done = await asyncio.gather(*(joined.run([Put.of(("a",), str(n), {})]) for n in range(20)), return_exceptions=True)
    assert all(isinstance(each, DatabaseUnavailableError) for each in done)
    assert len({id(each) for each in done}) == 20
    places.append(database)
    await joined.run([Put.of(("a",), "k", {})])
    await joined.aclose()
    await nowhere.close()


async def test_a_database_that_is_not_migrated_names_the_remedy(database: DatabaseManager) -> None:
    await database.downgrade("agent_service_0012")

    with pytest.raises(DatabaseError, match="agent-service db upgrade"):
        await ItemTransactions().run(database, [ListNamespaces.of()])


async def test_downgrading_and_upgrading_again_leaves_what_the_models_say(database: DatabaseManager) -> None:
    await database.downgrade("agent_service_0012")
    await database.upgrade()

    assert (await database.check()).ok
    await ItemTransactions().run(database, [Put.of(("a",), "k", {})])


async def test_the_prefix_of_a_search_is_found_along_the_index(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    puts = [Put.of((f"u{n}", "m"), "k", {"n": n}) for n in range(3000)]
    await ItemTransactions().run(database, puts)
    async with database.session() as db:
        await db.execute(text("ANALYZE agent_service_store_items"))
        plan = await db.execute(
            text(
                "EXPLAIN SELECT key FROM agent_service_store_items WHERE tenant_id = '' "
                "AND namespace ~>=~ 'u7' AND namespace ~<~ 'u70'"
            )
        )
        lines = "\n".join(plan.scalars())
    await database.close()

    assert "store_items_prefix" in lines


async def test_behind_a_pgbouncer_in_transaction_mode(postgres_server: PostgresServer, postgres_url: str) -> None:
    items = ItemTransactions("acme")

    async def write(database: DatabaseManager, n: int) -> None:
        ops = [Put.of(("a",), str(n), {"n": n}, ttl=60), Get.of(("a",), "0", refresh=True)]
        await items.run(database, ops)  # type: ignore[arg-type]

    with running_pgbouncer(postgres_server) as port:
        database = DatabaseManager(by_way_of(port, postgres_url), pgbouncer=True)
        await asyncio.gather(*(write(database, n) for n in range(20)))
        (found,) = await items.run(database, [Search.of(("a",), filter={"n": {"$gt": 9}}, limit=100)])
        removed = await items.remove_under(database, "")
        await database.close()

    assert len(found) == 10  # type: ignore[arg-type]
    assert removed == 20


async def test_reading_items_finds_each_by_its_key(database: DatabaseManager) -> None:
    await ItemTransactions().run(database, [Put.of((f"u{n}",), "k", {"n": n}) for n in range(3000)])
    sent = list[tuple[str, Any]]()
    async with database.session() as db:
        connection = await db.connection()
        event.listen(connection.sync_connection, "before_cursor_execute", lambda *given: sent.append(given[2:4]))
        gets = [Get.of((f"u{n}",), "k", refresh=False) for n in range(50)]
        found = await connection.run_sync(get_items, "", gets, set(), live_only=False)
        explain = "EXPLAIN QUERY PLAN" if database.embedded else "EXPLAIN"
        plan = await connection.exec_driver_sql(f"{explain} {sent[0][0]}", sent[0][1])
    lookups = [str(row[-1]) for row in plan if "tenant_id" in str(row[-1])]

    assert all(found)
    assert lookups
    assert all("namespace" in each for each in lookups)


async def test_what_was_refused_at_once_is_not_done_later(database: DatabaseManager) -> None:
    """As where DATABASE_URL cannot be used, and is changed."""
    usable = False

    def find() -> DatabaseManager:
        if usable:
            return database
        raise ConfigurationError("DATABASE_URL cannot be used")

    joined = JoinedItems(ItemTransactions(), find)
    with pytest.raises(ConfigurationError):
        await joined.run([Put.of(("a",), "refused", {})])
    usable = True
    await joined.run([Put.of(("a",), "k", {})])
    found = await joined.run([Search.of(("a",))])
    await joined.aclose()

    assert [each.key for each in found[0]] == ["k"]  # type: ignore[union-attr]
