"""Worker processes that race each other on one Redis."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent_service.infrastructure.redis.client import RedisClient

CHECKOUT = Path(__file__).parents[2]


@asynccontextmanager
async def running(
    client: RedisClient, module: str, *arguments: list[str]
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Run ``python -m module`` once for each list of arguments; go on when all are ready, and kill what is left."""
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", module, *each, cwd=CHECKOUT, env=os.environ)
        for each in arguments
    ]
    try:

        async def all_are_ready() -> bool:
            return int(await client.execute("LLEN", "ready")) == len(workers)

        await until(all_are_ready, 30)
        yield workers
    finally:
        for each in workers:
            if each.returncode is None:
                each.kill()
            await each.wait()
        await client.unlink([b"ready"])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait for a condition that Redis tells."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)
