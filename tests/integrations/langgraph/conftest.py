"""A saver on a database of each engine; what a test leaves open fails it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.integrations.langgraph.saver import AgentServiceSaver


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    """A migrated, empty database; at the end no connection is in use and no task is left."""
    manager = DatabaseManager(database_url)
    await manager.prepare()
    before = asyncio.all_tasks()
    yield manager
    in_use = manager.get_metrics()["in_use"]
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    await manager.close()
    assert in_use == 0
    assert not left


@pytest.fixture
async def saver(database: DatabaseManager) -> AsyncIterator[AgentServiceSaver]:
    """A saver of the default tenant."""
    async with AgentServiceSaver(database) as opened:
        yield opened
