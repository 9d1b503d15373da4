"""One tenant's flood of due triggers leaves room for the others."""

import asyncio

import pytest

from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger
from agent_service.tenants.trigger import RedisTrigger

OTHERS = [f"small{number}" for number in range(8)]


async def test_a_tenant_with_more_due_triggers_than_can_run_does_not_keep_the_others_waiting():
    begun: set[str] = set()
    all_others, end = asyncio.Event(), asyncio.Event()

    @on_trigger("work")
    async def handle(trigger: Trigger) -> None:
        begun.add(trigger.tenant)
        if begun >= set(OTHERS):
            all_others.set()
        await end.wait()

    for number in range(150):
        await RedisTrigger("flood").set("work", f"{number}", 0.001)
    for each in OTHERS:
        await RedisTrigger(each).set("work", "only", 0.001)
    await asyncio.sleep(0.05)  # all are due when the runner looks for the first time

    async with TriggerRunner(poll_interval=0.005):
        try:
            async with asyncio.timeout(60):
                await all_others.wait()
        finally:
            end.set()

    assert begun == {"flood", *OTHERS}


async def test_tenants_take_turns_when_no_runner_has_room_for_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent_service.tenants.handling.MAX_RUNNING", 1)
    order: list[str] = []
    done = asyncio.Event()

    @on_trigger("work")
    async def handle(trigger: Trigger) -> None:
        order.append(trigger.tenant)
        if len(order) == 50:
            done.set()

    for tenant in ("one", "other"):
        for number in range(25):
            await RedisTrigger(tenant).set("work", f"{number}", 0.001)
    await asyncio.sleep(0.05)

    async with TriggerRunner(poll_interval=0.005), asyncio.timeout(60):
        await done.wait()

    assert set(order[:24]) == {"one", "other"}
