"""A process that fires triggers until SIGTERM: ``python -m tests.tenants.trigger_worker LEASE NUMBER``."""

import asyncio
import os
import signal
import sys
import time

from agent_service.tenants.base import current_redis
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger
from tests.support.forked import wait_for_the_others

HANDLING = 0.02
"""Seconds that a handling takes."""


@on_trigger("race")
async def race(trigger: Trigger) -> None:
    client, _ = await current_redis()
    late = time.time() - trigger.due_at.timestamp()
    await client.execute("RPUSH", "begun", f"{trigger.identifier} {os.getpid()} {trigger.attempt} {late:.6f}")
    await asyncio.sleep(HANDLING)
    await client.execute("SADD", "ended", trigger.identifier)


async def main(lease: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with TriggerRunner(lease=lease):
        wait_for_the_others()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
