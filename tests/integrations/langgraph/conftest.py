"""A saver and a store over a database of each engine; at the end no connection is in use and no task is left."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceSaver, AgentServiceStore
from tests.context.test_database import pass_time
from tests.database.conftest import configured, database  # noqa: F401 - fixtures

PassTime = Callable[[float], Awaitable[None]]


@pytest.fixture
async def saver(database: DatabaseManager) -> AsyncIterator[AgentServiceSaver]:  # noqa: F811
    """A saver of the default tenant."""
    async with AgentServiceSaver(database) as opened:
        yield opened


@pytest.fixture
async def store(database: DatabaseManager) -> AsyncIterator[AgentServiceStore]:  # noqa: F811
    """Shows what has expired until it is removed, as LangGraph's own stores do."""
    store = AgentServiceStore(database, tenant_id="acme")
    yield store
    await store.aclose()


@pytest.fixture
def pass_minutes(database: DatabaseManager) -> PassTime:  # noqa: F811
    """Let so many minutes pass for all items."""

    async def passing(minutes: float) -> None:
        async with database.session() as db:
            await pass_time(db, minutes * 60, "agent_service_store_items")

    return passing


@pytest.fixture
def stored(database: DatabaseManager) -> Callable[[], Awaitable[int]]:  # noqa: F811
    """Count the rows of items."""

    async def count() -> int:
        async with database.session() as db:
            return int((await db.execute(text("SELECT count(*) FROM agent_service_store_items"))).scalar_one())

    return count
