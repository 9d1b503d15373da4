"""Several processes that enqueue, claim and remove at once, one of which dies."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.batch import RedisBatch
from tests.support.forks import Forker
from tests.tenants.batch_worker import QUEUES, SERVICE, TENANTS
from tests.tenants.processes import running


@pytest.fixture
async def record(client: RedisClient) -> AsyncIterator[RedisClient]:
    """The client; what the workers wrote down is removed afterwards."""
    yield client
    await client.unlink([b"enqueued", b"processed"])


async def race(client: RedisClient, forker: Forker, *, seconds: float, workers: int) -> None:
    async with running(client, forker, workers, "tests.tenants.batch_worker:main", seconds) as forks:
        await asyncio.sleep(seconds / 2)
        os.kill(forks.pids[0], signal.SIGKILL)
        _, codes = await asyncio.wait_for(asyncio.to_thread(forks.finish), seconds + 30)
    assert codes == [-signal.SIGKILL] + [0] * (workers - 1)

    enqueued = set(await client.execute("SMEMBERS", "enqueued"))
    processed = await client.execute("LRANGE", "processed", 0, -1)
    assert len(enqueued) > 10 * seconds
    assert enqueued <= set(processed)
    assert await RedisBatch.get_pending_tenants(SERVICE) == set()
    for tenant in TENANTS:
        for queue in QUEUES:
            assert await RedisBatch(tenant).claim(SERVICE, *queue) == []


async def test_every_item_is_processed_though_a_worker_dies(record: RedisClient, forker: Forker):
    await race(record, forker, seconds=1, workers=2)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_four_processes_race_for_half_a_minute_and_orphan_nothing(record: RedisClient, forker: Forker):
    await race(record, forker, seconds=30, workers=4)
