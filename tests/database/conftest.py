"""A database of each engine, opened and closed; what a test leaves open fails it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.connection import close_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository

NewSession = Callable[..., Awaitable[Session]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    """A migrated, empty database; at the end no connection is in use and no task is left."""
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
async def db(database: DatabaseManager) -> AsyncIterator[AsyncSession]:
    """A session that is committed at the end."""
    async with database.session() as session:
        yield session


@pytest.fixture
def repo(db: AsyncSession) -> SessionRepository:
    """A repository of the default tenant."""
    return SessionRepository(db)


@pytest.fixture
def new_session(repo: SessionRepository) -> NewSession:
    """Stores a session of a random user, with whatever the test cares about."""

    async def create(**values: Any) -> Session:
        return await repo.create(Session(**{"user_id": uuid4(), "agent_id": "code_agent", **values}))

    return create


@pytest.fixture
async def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Settings that lead to a migrated, empty database; afterwards it is closed."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    yield
    await close_database()
