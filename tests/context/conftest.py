"""A client of the shared Redis, and after each test no task left."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_service.infrastructure.redis.client import RedisClient


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """After each test no task of ours runs."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of the shared, emptied Redis."""
    client = RedisClient(redis_url, timeout=10)
    yield client
    await client.aclose()


@pytest.fixture
def context_file(sqlite_template: bytes, tmp_path: Path) -> Path:
    """``context.db`` in the folder of the test, with the schema: to make it takes longer than most tests."""
    path = tmp_path / "context.db"
    path.write_bytes(sqlite_template)
    return path
