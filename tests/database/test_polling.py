"""How a subscription looks again where nobody notifies it: soon after something was said, and never too rarely."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository, feed


class Reads:
    """Counts what a database is asked for messages."""

    def __init__(self, database: DatabaseManager) -> None:
        self.count = 0
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.count += statement.startswith("SELECT") and "session_messages" in statement

    async def more(self, number: int, seconds: float = 60) -> None:
        """Wait for so many more."""
        wanted = self.count + number
        async with asyncio.timeout(seconds):
            while self.count < wanted:
                await asyncio.sleep(0.005)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}")
    yield manager
    await manager.close()


async def new_session(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="ada"))).id


async def append(database: DatabaseManager, id_: UUID) -> None:
    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(id_, {"role": "user"})


async def test_the_time_between_two_looks_has_a_bound(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SHORTEST_POLL", 0.001)
    monkeypatch.setattr(feed, "LONGEST_POLL", 0.004)
    id_, reads = await new_session(database), Reads(database)
    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    async with aclosing(subscription) as messages:
        following = asyncio.ensure_future(anext(messages))
        await reads.more(30)  # without a bound the thirtieth would come after days
        following.cancel()
        await asyncio.wait([following])


async def test_what_was_said_makes_it_look_again_soon(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SHORTEST_POLL", 0.002)
    monkeypatch.setattr(feed, "LONGEST_POLL", 1000.0)
    id_, reads = await new_session(database), Reads(database)
    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    async with aclosing(subscription) as messages:
        following = asyncio.ensure_future(anext(messages))
        await reads.more(9)  # the next look is half a second away, the one after that a second
        await append(database, id_)
        assert (await following).seq == 1
        following = asyncio.ensure_future(anext(messages))
        await reads.more(6)  # a minute, had it gone on doubling
        following.cancel()
        await asyncio.wait([following])


async def test_the_longer_nothing_is_said_the_more_rarely_it_looks(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SHORTEST_POLL", 0.002)
    monkeypatch.setattr(feed, "LONGEST_POLL", 1000.0)
    id_, reads = await new_session(database), Reads(database)
    async with database.session() as db:
        subscription = SessionRepository(db).subscribe(id_)
    async with aclosing(subscription) as messages:
        following = asyncio.ensure_future(anext(messages))
        started = asyncio.get_running_loop().time()
        await reads.more(9)
        took = asyncio.get_running_loop().time() - started
        following.cancel()
        await asyncio.wait([following])

    assert took > 0.75 * 0.002 * (4 + 8 + 16 + 32 + 64 + 128)  # two pauses fewer, so that nothing hangs on the first
