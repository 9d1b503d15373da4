"""Repositories, triggers and batches on a cluster: each script's keys share a slot, and scans see every primary."""

import asyncio

import pytest

from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisTable,
    RedisTrigger,
    RedisUser,
    Trigger,
    TriggerRunner,
    on_trigger,
)
from tests.servers.redis import RedisServer
from tests.tenants.rooms import ROOMS

TENANTS = ["acme", "other", "{braces}"]


@pytest.fixture
def url(cluster_url: str) -> str:
    return cluster_url


@pytest.fixture
def nodes(cluster: list[RedisServer]) -> list[RedisServer]:
    return cluster


async def test_every_repository_works_on_a_cluster():
    for tenant in TENANTS:
        for number, make in enumerate(ROOMS.values()):
            room = make(tenant, f"ann {number}", "main")
            await room.upsert({"a": 1, "email": f"{number}@x"})
            await room.append_to_list("list", number)
            assert await room.increment_field("a") == 2
            assert await room.compare_and_set("a", 2, 3)
            assert await room.get() == {"a": 3, "email": f"{number}@x", "list": [number]}
        await RedisTable(tenant).set("second", "ann 3", {})
        await RedisGeneric(tenant).set("key", [tenant])

        assert await RedisUser.search(tenant, indexes=("email",)).find_by_field("email", "1@x") is not None
        assert await RedisUser.search(tenant).find_by_field("email", "0@x") is not None
        assert await RedisUser.search(tenant).find_by_field("email", "none") is None
        assert await RedisTable(tenant).find_by_field("main", "a", 3) is not None
        assert await RedisSharedState(tenant, "ann 4").list_states() == ["main"]
        assert await RedisSharedState(tenant, "ann 4").clear_all_states() == 1
        assert await RedisTable(tenant).delete_all_by_pkid("ann 3") == 2
        assert await RedisGeneric(tenant).get("key") == [tenant]


async def test_triggers_fire_and_batches_empty_on_a_cluster():
    fired: set[tuple[str, str]] = set()

    @on_trigger("on a cluster {a}")
    async def on_a_cluster(trigger: Trigger) -> None:
        fired.add((trigger.tenant, trigger.identifier))
        if trigger.attempt == 1:
            raise LookupError

    async with TriggerRunner(backoff=(0.01, 0.01)):
        for tenant in TENANTS:
            for identifier in ("x", "{y}", "z:*"):
                await RedisTrigger(tenant).set("on a cluster {a}", identifier, 0.05)
                await RedisTrigger(tenant).set("later", identifier, 60)
        for tenant in TENANTS:
            while len(await RedisTrigger(tenant).pending()) > 3:
                await asyncio.sleep(0.01)

    assert len(fired) == 9
    for tenant in TENANTS:
        assert await RedisTrigger(tenant).late() == await RedisTrigger(tenant).dead() == []
        assert await RedisTrigger(tenant).delete_all_by_identifier("{y}") == 1
    for service in ("mail", "{sms}"):
        for tenant in TENANTS:
            await RedisBatch(tenant).enqueue(service, "daily", "send", {"to": tenant})
        assert await RedisBatch.get_pending_tenants(service) == set(TENANTS)
        for tenant in TENANTS:
            assert not await RedisBatch.remove_from_pending(service, tenant)
            claims = await RedisBatch(tenant).claim(service, "daily", "send")
            assert [each.payload for each in claims] == [{"to": tenant}]
            assert await RedisBatch(tenant).ack(claims) == 1
            assert await RedisBatch.remove_from_pending(service, tenant)


async def test_a_sleeping_runner_on_a_cluster_is_woken_whatever_node_has_the_triggers(monkeypatch: pytest.MonkeyPatch):
    for module in ("runner", "schedule"):
        monkeypatch.setattr(f"agent_service.tenants.{module}.LONGEST_SLEEP", 3600)
    fired: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("wakes on a cluster")
    async def wakes_on_a_cluster(trigger: Trigger) -> None:
        fired.put_nowait(trigger.identifier)

    async with TriggerRunner() as runner:
        while runner._wake_ups is None or not runner._wake_ups.live:
            await asyncio.sleep(0.01)
        for identifier in ("x", "y"):
            await RedisTrigger("acme").set("wakes on a cluster", identifier, 0.001)

            assert await asyncio.wait_for(fired.get(), 60) == identifier
