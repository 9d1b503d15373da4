"""A process whose clock is behind takes nothing back that others wrote. On both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing.clock import FakeClock

MESSAGE = {"role": "user", "content": "Hi"}
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)

Way = Callable[[DatabaseManager, UUID, FakeClock], Awaitable[Any]]


async def by_itself(database: DatabaseManager, id_: UUID, clock: FakeClock) -> None:
    async with database.session() as db:
        await SessionRepository(db, clock=clock).add_message_to_session(id_, MESSAGE)


async def several(database: DatabaseManager, id_: UUID, clock: FakeClock) -> None:
    async with database.session() as db:
        await SessionRepository(db, clock=clock).add_messages_to_session(id_, [MESSAGE] * 2)


async def by_a_writer(database: DatabaseManager, id_: UUID, clock: FakeClock) -> None:
    async with SessionWriter(database, clock=clock) as writer:
        await writer.append(id_, MESSAGE)


async def several_by_a_writer(database: DatabaseManager, id_: UUID, clock: FakeClock) -> None:
    async with SessionWriter(database, clock=clock) as writer:
        await asyncio.gather(*(writer.append(id_, MESSAGE) for _ in range(5)))


@pytest.mark.parametrize("way", [by_itself, several, by_a_writer, several_by_a_writer])
async def test_an_append_moves_no_moment_back(database: DatabaseManager, way: Way) -> None:
    async def moments() -> tuple[Any, ...]:
        async with database.session() as db:
            session = await SessionRepository(db).get(id_)
            assert session is not None
            return session.last_activity_at, session.updated_at, session.expires_at

    async with database.session() as db:
        id_ = (await SessionRepository(db, clock=FakeClock(NOW)).create(Session(user_id="ada"))).id
    created = await moments()
    await way(database, id_, FakeClock(NOW - timedelta(days=1)))
    assert await moments() == created

    ahead = FakeClock(NOW + timedelta(days=1))
    await way(database, id_, ahead)
    assert await moments() == (*[NOW + timedelta(days=1)] * 2, created[2] + timedelta(days=1))
