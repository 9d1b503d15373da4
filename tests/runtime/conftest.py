"""After each test: no runtime lives, no task and no thread of a pool is left."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from agent_service.runtime import AgentRuntime, GlobalSymphonyConfig
from tests.support.leftovers import pool_threads


@pytest_asyncio.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    before = pool_threads()  # synchronous context stores share a bridge until the process ends
    yield
    await AgentRuntime.shutdown(timeout=2)
    here = asyncio.current_task()
    assert not {task for task in asyncio.all_tasks() if task is not here}
    deadline = time.monotonic() + 30
    while left := pool_threads() - before:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def runtime(redis_url: str) -> AsyncIterator[AgentRuntime]:
    """A runtime over the shared, emptied Redis."""
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=redis_url)) as runtime:
        yield runtime
