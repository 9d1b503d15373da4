"""A store on each engine, and what its tables hold."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import func, select

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.conversation import ConversationEntryRow, ConversationRow

pytest.importorskip("pydantic_ai.conversation_store")

from agent_service.integrations.pydantic_ai import DatabaseConversationStore

Counted = Callable[[], Awaitable[tuple[int, int]]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    """A migrated, empty database; at the end no connection is in use."""
    manager = DatabaseManager(database_url)
    await manager.prepare()
    yield manager
    in_use = manager.get_metrics()["in_use"]
    await manager.close()
    assert in_use == 0


@pytest.fixture
def store(database: DatabaseManager) -> DatabaseConversationStore:
    """A store of the default tenant."""
    return DatabaseConversationStore(database)


@pytest.fixture
def counted(database: DatabaseManager) -> Counted:
    """Counts the records and entries of all tenants."""

    async def count() -> tuple[int, int]:
        async with database.session(readonly=True) as db:
            records = await db.scalar(select(func.count()).select_from(ConversationRow))
            entries = await db.scalar(select(func.count()).select_from(ConversationEntryRow))
        return records or 0, entries or 0

    return count
