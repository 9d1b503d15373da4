"""
A process of SQLite traffic in which one request in ten is cancelled: ``... URL NAME TASKS SECONDS SESSION_ID...``.

A request appends, reads, searches, changes a context or a key-value row, or appends through a SessionWriter. What was
acknowledged is printed at once: client id, session, number, and the moment on the machine's monotonic clock.
"""

import asyncio
import os
import random
import sys
import time
import warnings
from uuid import UUID

from agent_service.core.errors import AgentServiceError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository

CANCELLED = 0.1
"""Of all requests."""
LATEST = 0.02
"""Seconds within which a request that is cancelled is cancelled: about what one takes."""


class Traffic:
    """The requests of one process."""

    def __init__(self, database: DatabaseManager, writer: SessionWriter, name: str, ids: list[UUID]) -> None:
        self._database = database
        self._writer = writer
        self._name = name
        self._ids = ids
        self._table = KeyValueTable(database.session, table="cancelled_requests")

    async def task(self, number: int, until: float) -> None:
        """Make requests, one after the other."""
        chance = random.Random(f"{self._name}-{number}")
        count = 0
        while time.monotonic() < until:
            count += 1
            patience = chance.uniform(0, LATEST) if chance.random() < CANCELLED else None
            client_id = f"{self._name}-{number}-{count}"
            try:
                async with asyncio.timeout(patience):
                    await self._request(chance, client_id)
            except TimeoutError:
                continue
            except AgentServiceError as exc:
                print(f"! {client_id} {exc!r}", flush=True)  # noqa: T201

    async def _request(self, chance: random.Random, client_id: str) -> None:
        session_id = chance.choice(self._ids)
        message = {"role": "user", "content": f"hello {client_id}", "token_count": 1}
        kind = chance.random()
        if kind < 0.3:
            stored = await self._writer.append(session_id, message, client_id=client_id)
        elif kind < 0.7:
            async with self._database.session() as db:
                stored = await SessionRepository(db).add_message_to_session(session_id, message, client_id=client_id)
        else:
            await self._other(kind, session_id, client_id)
            return
        print(f"{client_id} {session_id} {stored.seq} {time.monotonic()}", flush=True)  # noqa: T201

    async def _other(self, kind: float, session_id: UUID, client_id: str) -> None:
        if kind > 0.95:
            await self._table.change(client_id[:4], lambda value: (value or "") + ".")
            return
        async with self._database.session() as db:
            repo = SessionRepository(db)
            if kind < 0.85:
                await repo.get_messages(session_id, limit=20)
            elif kind < 0.9:
                await repo.update_session_context(session_id, {client_id[:4]: client_id})
            else:
                await repo.search_messages("ada", "hello")


async def main(url: str, name: str, tasks: int, seconds: float, ids: list[UUID]) -> None:
    """Make requests for a while."""
    database = DatabaseManager(url, pool_size=4, max_overflow=0)
    async with SessionWriter(database) as writer:
        until = time.monotonic() + seconds
        traffic = Traffic(database, writer, name, ids)
        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(traffic.task(number, until))
    await database.close()


if __name__ == "__main__":
    warnings.simplefilter("error")
    os.environ["SESSION_MAX_MESSAGES"] = "1000000000"
    target, label, task_count, duration, *sessions = sys.argv[1:]
    asyncio.run(main(target, label, int(task_count), float(duration), [UUID(each) for each in sessions]))
