"""A session service on each engine; at the end no connection is in use and no task is left."""

import asyncio
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("google.adk.sessions")

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(database_url)
    await manager.prepare()
    before = asyncio.all_tasks()
    yield manager
    in_use = manager.engine.pool.checkedout()  # type: ignore[attr-defined]
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    await manager.close()
    assert in_use == 0
    assert not left


@pytest.fixture
async def service(database: DatabaseManager) -> AsyncIterator[AdkSessionService]:
    async with AdkSessionService(database) as opened:
        yield opened


@pytest.fixture
async def another(database: DatabaseManager) -> AsyncIterator[AdkSessionService]:
    """A service of another process, as far as the first can tell."""
    async with AdkSessionService(database) as opened:
        yield opened
