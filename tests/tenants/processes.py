"""Worker processes that race each other on one Redis."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent_service.infrastructure.redis.client import RedisClient
from tests.support.forks import Forker, Forks


@asynccontextmanager
async def running(
    client: RedisClient, forker: Forker, workers: int, function: str, *arguments: Any
) -> AsyncIterator[Forks]:
    """Run a coroutine function in processes; go on when all are ready, and kill what is left."""
    with forker.running(workers, function, *arguments, environment=os.environ) as forks:

        async def all_are_ready() -> bool:
            return int(await client.execute("LLEN", "ready")) == workers

        await until(all_are_ready, 30)
        yield forks
    await client.unlink([b"ready"])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait for a condition that Redis tells."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)
