"""Triggers and batches on a cluster: each script's keys share a slot, whatever the names."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.tenants import RedisBatch, RedisTrigger, Trigger, TriggerRunner, on_trigger

TENANTS = ["acme", "other", "{braces}"]


@pytest.fixture(autouse=True)
async def house(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("REDIS_URL", cluster_url)
    monkeypatch.setenv("REDIS_TIMEOUT", "10")
    reset_settings()
    yield
    await close_redis()
    assert asyncio.all_tasks() == {asyncio.current_task()}


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
