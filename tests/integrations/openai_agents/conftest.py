"""Sessions of the SDK on a database of each engine, by the repository and through a writer."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession
from tests.database.conftest import database

__all__ = ["database"]

NewSession = Callable[..., DatabaseSession]


@pytest.fixture(params=["repository", "writer"])
async def writer(request: pytest.FixtureRequest, database: DatabaseManager) -> AsyncIterator[SessionWriter | None]:
    """A writer to add items through, and none."""
    if request.param == "repository":
        yield None
        return
    async with SessionWriter(database) as opened:
        yield opened


@pytest.fixture
def new(database: DatabaseManager) -> NewSession:
    """Makes sessions of Ada's in the test's database."""

    def make(session_id: str = "chat", **options: Any) -> DatabaseSession:
        return DatabaseSession(session_id, **{"user_id": "ada", "database": database, **options})

    return make
