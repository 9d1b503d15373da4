"""Times to live: minutes, refreshed by reads and writes, hidden where that is asked for, and removed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.store.base import GetOp, PutOp, SearchOp
from sqlalchemy import text

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import CleanupMetrics, cleanup_once, run_cleanup
from agent_service.integrations.langgraph import AgentServiceStore
from agent_service.integrations.metrics.reading import read
from tests.integrations.langgraph.conftest import PassTime
from tests.support.waiting import until


async def minutes_left(database: DatabaseManager, key: str) -> float | None:
    epoch = (
        "(julianday(expires_at) - julianday('now')) * 1440"
        if database.embedded
        else ("extract(epoch FROM expires_at - clock_timestamp())::float8 / 60")
    )
    async with database.session() as db:
        found = await db.execute(
            text(f"SELECT {epoch.replace(':', chr(92) + ':')} FROM agent_service_store_items WHERE key = :key"),
            {"key": key},
        )
        left: float | None = found.scalar_one()
        return left


async def refreshed(database: DatabaseManager, key: str, ttl: float) -> bool:
    left = await minutes_left(database, key)
    assert left is not None
    return left > ttl - 1


async def test_a_time_to_live_is_in_minutes(database: DatabaseManager, store: AgentServiceStore) -> None:
    await store.aput(("a",), "k", {}, ttl=90)
    await store.aput(("a",), "half", {}, ttl=0.5)
    await store.aput(("a",), "never", {})

    assert 89 < (await minutes_left(database, "k") or 0) <= 90
    assert 0.2 < (await minutes_left(database, "half") or 0) <= 0.5
    assert await minutes_left(database, "never") is None


@pytest.mark.parametrize("refresh", [None, True, False])
async def test_reads_refresh_unless_told_not_to(
    database: DatabaseManager, store: AgentServiceStore, pass_minutes: PassTime, refresh: bool | None
) -> None:
    await store.aput(("a",), "got", {}, ttl=10)
    await store.aput(("b",), "found", {}, ttl=10)
    await store.aput(("b",), "never", {})
    await pass_minutes(5)

    await store.aget(("a",), "got", refresh_ttl=refresh)
    await store.asearch(("b",), refresh_ttl=refresh)

    assert await refreshed(database, "got", 10) is (refresh is not False)
    assert await refreshed(database, "found", 10) is (refresh is not False)
    assert await minutes_left(database, "never") is None


async def test_each_operation_of_a_batch_decides_for_itself(
    database: DatabaseManager, store: AgentServiceStore, pass_minutes: PassTime
) -> None:
    for key in ("kept", "refreshed", "both", "put"):
        await store.aput((key,), key, {}, ttl=10)
    await pass_minutes(5)

    await store.abatch([
        GetOp(("kept",), "kept", refresh_ttl=False),
        GetOp(("refreshed",), "refreshed", refresh_ttl=True),
        SearchOp(("both",), refresh_ttl=False),
        GetOp(("both",), "both", refresh_ttl=True),
        GetOp(("put",), "put", refresh_ttl=True),
        PutOp(("put",), "put", {}, ttl=20),
    ])  # fmt: skip

    assert [await refreshed(database, key, 10) for key in ("kept", "refreshed", "both")] == [False, True, True]
    assert await refreshed(database, "put", 20)


async def test_only_what_a_search_returns_is_refreshed(
    database: DatabaseManager, store: AgentServiceStore, pass_minutes: PassTime
) -> None:
    await store.aput(("a",), "other", {"n": 1}, ttl=10)
    await store.aput(("a",), "found", {"n": 2}, ttl=10)
    await pass_minutes(5)

    await store.asearch(("a",), filter={"n": 2})

    assert [await refreshed(database, key, 10) for key in ("other", "found")] == [False, True]


async def test_a_write_gives_the_time_to_live_that_it_states(
    database: DatabaseManager, store: AgentServiceStore
) -> None:
    await store.aput(("a",), "k", {}, ttl=10)
    await store.aput(("a",), "k", {}, ttl=100)
    assert await refreshed(database, "k", 100)

    await store.aput(("a",), "k", {}, ttl=None)
    assert await minutes_left(database, "k") is None


async def test_the_configuration_is_the_default(database: DatabaseManager, pass_minutes: PassTime) -> None:
    store = AgentServiceStore(database, ttl={"default_ttl": 30, "refresh_on_read": False})
    await store.aput(("a",), "default", {})
    await store.aput(("a",), "own", {}, ttl=60)
    await store.aput(("a",), "never", {}, ttl=None)
    await pass_minutes(10)
    await store.aget(("a",), "default")
    await store.aget(("a",), "own", refresh_ttl=True)

    assert not await refreshed(database, "default", 30)
    assert await refreshed(database, "own", 60)
    assert await minutes_left(database, "never") is None


async def test_what_has_expired_is_shown_until_it_is_removed_unless_it_is_to_be_omitted(
    database: DatabaseManager, store: AgentServiceStore, pass_minutes: PassTime
) -> None:
    hiding = AgentServiceStore(database, tenant_id="acme", ttl={"omit_expired": True})
    await store.aput(("a",), "k", {"n": 1, "text": "tea"}, ttl=10)
    await pass_minutes(11)

    assert await hiding.aget(("a",), "k") is None
    assert await hiding.asearch(("a",)) == []
    assert await hiding.asearch(("a",), query="tea") == []
    assert await hiding.alist_namespaces() == []
    assert await store.alist_namespaces() == [("a",)]
    assert [each.key for each in await store.asearch(("a",), refresh_ttl=False)] == ["k"]
    assert await hiding.aget(("a",), "k") is None  # its own reads do not bring it back
    assert await store.aget(("a",), "k") is not None  # this one does
    assert await hiding.aget(("a",), "k") is not None


async def test_an_item_put_over_an_expired_one_is_a_new_one(store: AgentServiceStore, pass_minutes: PassTime) -> None:
    await store.aput(("a",), "k", {"n": 1}, ttl=10)
    first = await store.aget(("a",), "k")
    await pass_minutes(11)
    await store.aput(("a",), "k", {"n": 2}, ttl=10)
    second = await store.aget(("a",), "k")

    assert first is not None
    assert second is not None
    assert second.created_at > first.created_at


async def test_sweeping_removes_what_has_expired_of_its_tenant(
    database: DatabaseManager,
    store: AgentServiceStore,
    pass_minutes: PassTime,
    stored: Callable[[], Awaitable[int]],
) -> None:
    other = AgentServiceStore(database, tenant_id="other")
    await store.abatch([PutOp(("a",), str(n), {}, ttl=10) for n in range(600)])
    await store.aput(("a",), "stays", {})
    await other.aput(("a",), "k", {}, ttl=10)
    assert await store.sweep_ttl() == 0
    await pass_minutes(11)

    assert await store.sweep_ttl() == 600
    assert await stored() == 2
    assert (await cleanup_once(database=database)).expired_items == 1
    assert (await cleanup_once(database=database)).expired_items == 0
    assert await stored() == 1


async def test_the_scheduled_cleanup_removes_and_counts(
    database: DatabaseManager, store: AgentServiceStore, pass_minutes: PassTime
) -> None:
    before, counted = read()["cleanup_expired_items"][()], CleanupMetrics()
    await store.aput(("a",), "k", {}, ttl=10)
    await pass_minutes(11)

    cleaning = asyncio.create_task(run_cleanup(interval=60, metrics=counted, database=database))
    await until(lambda: counted.last_success)
    cleaning.cancel()
    await asyncio.wait([cleaning])

    assert counted.expired_items == 1
    assert read()["cleanup_expired_items"][()] == before + 1  # type: ignore[operator]


async def test_a_sweeper_works_until_it_is_stopped(
    database: DatabaseManager, pass_minutes: PassTime, stored: Callable[[], Awaitable[int]]
) -> None:
    often: Any = {"default_ttl": 10, "sweep_interval_minutes": 0.001}
    async with AgentServiceStore(database, ttl=often) as store:
        running = await store.start_ttl_sweeper()
        assert await store.start_ttl_sweeper() is running
        await store.aput(("a",), "k", {})
        await pass_minutes(11)

        async def swept() -> bool:
            return await stored() == 0

        await until(swept)
        assert not running.done()
        for minutes in (-1, 0):
            with pytest.raises(ConfigurationError, match="sweep_interval_minutes"):
                await store.start_ttl_sweeper(minutes)

    assert running.cancelled()
    assert await store.stop_ttl_sweeper() is True


async def test_a_database_of_an_earlier_revision_has_no_items_to_clean_up(database: DatabaseManager) -> None:
    await database.downgrade("agent_service_0012")

    assert (await cleanup_once(database=database)).expired_items == 0
