"""What must hold of sessions whatever happened to their writers, and a reader that watches them meanwhile."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.forked import Forked

Acknowledged = dict[str, tuple[UUID, int]]


async def new_sessions(database: DatabaseManager, count: int) -> list[UUID]:
    """Store sessions to append to."""
    async with database.session() as db:
        return [(await SessionRepository(db).create(Session(user_id="ada"))).id for _ in range(count)]


async def histories(database: DatabaseManager, ids: list[UUID]) -> dict[UUID, list[tuple[int, str | None]]]:
    """Return number and client id of every message, by session."""
    columns = (SessionMessage.session_id, SessionMessage.seq, SessionMessage.client_id)
    statement = select(*columns).where(SessionMessage.session_id.in_(ids)).order_by(SessionMessage.seq)
    found: dict[UUID, list[tuple[int, str | None]]] = {each: [] for each in ids}
    async with database.session() as db:
        for session_id, seq, client_id in await db.execute(statement):
            found[session_id].append((seq, client_id))
    return found


@dataclass
class Reader:
    """Reads the sessions again and again; what it has seen must stay the beginning of what it sees."""

    database: DatabaseManager
    ids: list[UUID]
    reads: int = 0
    seen: dict[UUID, list[Any]] = field(default_factory=dict)

    async def run(self) -> None:
        """Read until cancelled; an unreachable database is tried again."""
        while True:
            try:
                self.compare(await histories(self.database, self.ids))
            except DatabaseError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)

    def compare(self, now: dict[UUID, list[Any]]) -> None:
        """Compare with what was seen before."""
        for session_id, before in self.seen.items():
            assert now[session_id][: len(before)] == before, "earlier history changed"
        self.seen, self.reads = now, self.reads + 1


async def check(database: DatabaseManager, ids: list[UUID], acknowledged: Acknowledged) -> int:
    """Check everything that is promised; give how many messages there are."""
    final = await histories(database, ids)
    for session_id, messages in final.items():
        assert [seq for seq, _ in messages] == list(range(1, len(messages) + 1)), "a gap"
        assert len({client_id for _, client_id in messages}) == len(messages), "a client id twice"
        await _check_counters(database, session_id)
    stored = {client_id: (session_id, seq) for session_id, each in final.items() for seq, client_id in each}
    lost = {client_id for client_id, place in acknowledged.items() if stored.get(client_id) != place}
    assert not lost, f"acknowledged and not there: {sorted(lost)[:5]}"
    return len(stored)


async def _check_counters(database: DatabaseManager, session_id: UUID) -> None:
    recount = select(
        func.coalesce(func.max(SessionMessage.seq), 0),
        func.count(),
        func.coalesce(func.sum(SessionMessage.token_count), 0),
    ).where(SessionMessage.session_id == session_id)
    counters = select(Session.last_seq, Session.total_messages, Session.total_tokens).where(Session.id == session_id)
    async with database.session() as db:
        assert tuple((await db.execute(counters)).one()) == tuple((await db.execute(recount)).one())


class WriterProcess:
    """A process of :mod:`tests.database.group_writer`, and what it acknowledged."""

    def __init__(self, url: str, name: str, ids: list[UUID], *, tasks: int, messages: int) -> None:
        self._arguments = (url, name, str(tasks), str(messages), *map(str, ids))
        self.acknowledged: Acknowledged = {}

    async def run(self, *, killed_after: int | None = None) -> int:
        """
        Run it to its end; return its exit status.

        :param killed_after: how many messages it acknowledges before it is killed (SIGKILL).
        """
        with await Forked.start("tests.database.group_writer", *self._arguments) as process:
            if killed_after is None:
                process.stdin.close()
            while line := await process.line():
                client_id, session_id, seq = line.split()
                self.acknowledged[client_id] = (UUID(session_id), int(seq))
                if len(self.acknowledged) == killed_after:
                    process.kill()
            return await process.wait()
