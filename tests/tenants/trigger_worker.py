"""What a process does that fires triggers until it is told to stop; see tests.support.forks."""

import asyncio
import os
import signal
import time

from agent_service.tenants.base import current_redis
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger

HANDLING = 0.02
"""Seconds that a handling takes."""


@on_trigger("race")
async def race(trigger: Trigger) -> None:
    client, _ = await current_redis()
    late = time.time() - trigger.due_at.timestamp()
    await client.execute("RPUSH", "begun", f"{trigger.identifier} {os.getpid()} {trigger.attempt} {late:.6f}")
    await asyncio.sleep(HANDLING)
    await client.execute("RPUSH", "ended", f"{trigger.identifier} {os.getpid()}")


async def main(number: int, lease: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with TriggerRunner(lease=lease):
        client, _ = await current_redis()
        await client.execute("RPUSH", "ready", os.getpid())
        await stop.wait()
