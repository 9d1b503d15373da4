"""Several processes that enqueue, claim and remove at once, one of which dies."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.batch import RedisBatch
from tests.support.forked import together
from tests.tenants.batch_worker import QUEUES, SERVICE, TENANTS


@pytest.fixture
async def record(client: RedisClient) -> AsyncIterator[RedisClient]:
    """The client; what the workers wrote down is removed afterwards."""
    yield client
    await client.unlink([b"enqueued", b"processed"])


async def race(client: RedisClient, *, seconds: float, workers: int) -> None:
    async with together(workers, "tests.tenants.batch_worker", str(seconds)) as processes:
        await asyncio.sleep(seconds / 2)
        processes[0].kill()
        async with asyncio.timeout(seconds + 30):
            codes = [await each.wait() for each in processes]
    assert codes == [-signal.SIGKILL] + [0] * (workers - 1)

    enqueued = set(await client.execute("SMEMBERS", "enqueued"))
    processed = await client.execute("LRANGE", "processed", 0, -1)
    assert len(enqueued) > 10 * seconds
    assert enqueued <= set(processed)
    assert await RedisBatch.get_pending_tenants(SERVICE) == set()
    for tenant in TENANTS:
        for queue in QUEUES:
            assert await RedisBatch(tenant).claim(SERVICE, *queue) == []


async def test_every_item_is_processed_though_a_worker_dies(record: RedisClient):
    await race(record, seconds=1, workers=2)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_four_processes_race_for_half_a_minute_and_orphan_nothing(record: RedisClient):
    await race(record, seconds=30, workers=4)
