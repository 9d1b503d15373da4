"""Several processes that enqueue, claim and remove at once, one of which dies."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.batch import RedisBatch
from tests.tenants.batch_worker import QUEUES, SERVICE, TENANTS
from tests.tenants.processes import running


@pytest.fixture
async def record(client: RedisClient) -> AsyncIterator[RedisClient]:
    """The client; what the workers wrote down is removed afterwards."""
    yield client
    await client.unlink([b"enqueued", b"processed"])


async def race(client: RedisClient, *, seconds: float, workers: int) -> None:
    arguments = [[str(number), str(seconds)] for number in range(workers)]
    async with running(client, "tests.tenants.batch_worker", *arguments) as processes:
        victim, *others = processes
        await asyncio.sleep(seconds / 2)
        victim.kill()
        assert [await asyncio.wait_for(each.wait(), seconds + 30) for each in others] == [0] * len(others)

    enqueued = set(await client.execute("SMEMBERS", "enqueued"))
    processed = await client.execute("LRANGE", "processed", 0, -1)
    assert len(enqueued) > 50 * seconds
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
