"""A process that fills and empties batches: ``python -m tests.tenants.batch_worker SECONDS NUMBER``.

It finds work by asking who is pending, as a coordinator does, so an item of a tenant that is pending no more is lost.
"""

import asyncio
import random
import sys
import time

from agent_service.tenants.base import current_redis
from agent_service.tenants.batch import RedisBatch
from tests.support.forked import wait_for_the_others

SERVICE = "race"
TENANTS = ["a", "b", "c"]
QUEUES = [("daily", "send"), ("weekly", "send"), ("daily", "check")]
VISIBILITY = 0.3
"""Seconds until an item of a worker that died or forgot it is somebody else's."""


async def fill(number: int, until: float) -> None:
    client, _ = await current_redis()
    count = 0
    while time.monotonic() < until:
        count += 1
        item = f"{number}-{count}"
        await RedisBatch(random.choice(TENANTS)).enqueue(SERVICE, *random.choice(QUEUES), payload=item)
        await client.execute("SADD", "enqueued", item)
        await asyncio.sleep(random.choice([0, 0, 0.001, 0.02]))


async def empty(until: float) -> None:
    """Work until nobody is pending any more and nothing more comes."""
    while (pending := await RedisBatch.get_pending_tenants(SERVICE)) or time.monotonic() < until:
        for tenant in pending:
            for queue in QUEUES:
                await work(RedisBatch(tenant), queue)
            await RedisBatch.remove_from_pending(SERVICE, tenant)
        await asyncio.sleep(0.001)


async def work(batch: RedisBatch, queue: tuple[str, str]) -> None:
    client, _ = await current_redis()
    claims = await batch.claim(SERVICE, *queue, count=random.randint(1, 8), visibility=VISIBILITY)
    if claims and random.random() > 0.02:  # else it forgets them
        await client.execute("RPUSH", "processed", *(each.payload for each in claims))
        await batch.ack(claims)


async def main(seconds: float, number: int) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(fill(number, until), fill(number + 1000, until), empty(until), empty(until))


if __name__ == "__main__":
    wait_for_the_others()
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
