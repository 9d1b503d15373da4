"""The two surroundings in which every documented example must work."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import close_cache
from agent_service.infrastructure.database import close_database


@pytest.fixture(params=["memory and SQLite", "Redis and PostgreSQL"])
def surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Embedded defaults, or what REDIS_URL and DATABASE_URL say; gives the name of the one in force."""
    if request.param == "Redis and PostgreSQL":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres_url"))
        reset_settings()
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def house(surroundings: str, sqlite_template: bytes, home: Path) -> AsyncIterator[str]:
    """The surroundings with an embedded database that is migrated; what a test opened in them is closed again."""
    (home / "agent_service.db").write_bytes(sqlite_template)
    yield surroundings
    await close_cache()
    await close_database()
    assert asyncio.all_tasks() == {asyncio.current_task()}
