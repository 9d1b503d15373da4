"""Databases to import from, of each engine, and a migrated one to import into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager

pytest_plugins: list[str] = []


@pytest.fixture
async def target(database_url: str) -> AsyncIterator[DatabaseManager]:
    """An empty database to import into, of each engine; at the end no connection is in use."""
    manager = DatabaseManager(database_url)
    await manager.prepare()
    yield manager
    in_use = manager.engine.pool.checkedout()  # type: ignore[attr-defined]
    await manager.close()
    assert in_use == 0


@pytest.fixture(params=["sqlite", "postgres"])
def source_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database that a framework may fill, of each engine, with the driver that frameworks use."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'source.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url
