"""A database to import into, of each engine, and one of the other engine to import from."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager


@pytest.fixture
async def target(database_url: str) -> AsyncIterator[DatabaseManager]:
    """An empty database to import into; at the end no connection is in use and no task is left."""
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
def source_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> str:
    """URL of an empty database for a framework to fill: of the engine that the target is not."""
    if database_url.startswith("postgresql"):
        return f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def source_file(tmp_path: Path) -> str:
    """URL of a file of SQLite to import from, where the engine is of no interest."""
    return f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
