"""
Reading messages and lists, beside the drivers: ``python -m benchmarks.session_reads``.

The last 50 messages of 10,000; 20 of 10,000 sessions; and page 1 of them with their number. All candidates read in an
open transaction. The drivers' rows stay rows: no JSON is decoded, and no objects are made.
"""

import asyncio
import logging
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session, set_own_fields
from agent_service.infrastructure.database.repositories import SessionRepository
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

MESSAGES = SESSIONS = 10_000
BATCH = 1_000
READER, LISTER = "reader", "lister"
LAST = "the last 50 of 10,000 messages"
LIST = "20 of 10,000 sessions"
PAGE = "page 1 of 10,000 sessions, and their number"
STATEMENTS = {
    LAST: "SELECT * FROM {messages} WHERE tenant_id = '' AND session_id = {0} ORDER BY seq DESC LIMIT 50",
    LIST: "SELECT * FROM {sessions} WHERE tenant_id = '' AND user_id = {0} AND deleted_at IS NULL "
    "ORDER BY last_activity_at DESC, id DESC LIMIT 20",
    PAGE: "SELECT count(*) FROM {sessions} WHERE tenant_id = '' AND user_id = {0} AND deleted_at IS NULL",
}
Reads = dict[str, Callable[[], Awaitable[object]]]


async def fill(database: DatabaseManager) -> UUID:
    """Store what is read; return the session with the messages."""
    await database.upgrade()
    async with database.session() as db:
        repo = SessionRepository(db)
        key = (await repo.create(Session(user_id=READER))).id
        for start in range(0, MESSAGES, BATCH):
            text = "Please look at ticket {}, it fails again."
            batch = [{"role": "user", "content": text.format(n)} for n in range(start, start + BATCH)]
            await repo.add_messages_to_session(key, batch)
        db.add_all(await sessions(repo))
    return key


async def sessions(repo: SessionRepository) -> list[Session]:
    """Return one user's sessions, to be stored with one flush."""
    made = await repo.create(Session(user_id=LISTER, title="Tickets"))
    moments = {name: getattr(made, name) for name in ("created_at", "updated_at", "last_activity_at")}
    found = []
    for _ in range(SESSIONS - 1):
        session = Session(user_id=LISTER, title="Tickets", tenant_id="", expires_at=made.expires_at)
        set_own_fields(session, **moments)
        found.append(session)
    return found


async def measure(database: DatabaseManager, key: UUID, title: str, raw: Reads) -> None:
    """Print a table for each read."""
    async with database.session() as db:
        repo = SessionRepository(db)
        ours: Reads = {
            LAST: lambda: repo.get_messages(key, limit=50),
            LIST: lambda: repo.get_user_sessions(LISTER, limit=20),
            PAGE: lambda: repo.get_paginated_user_sessions(LISTER, 1, 20),
        }
        for name, read in ours.items():
            seconds = await seconds_per_call({"the driver": raw[name], "agent_service": read}, calls=50)
            print_ratios(f"{title}: {name}", seconds)


async def on_sqlite() -> None:
    """Beside sqlite3, which needs no thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        database = DatabaseManager(f"sqlite+aiosqlite:///{path}")
        key = await fill(database)
        raw = sqlite3.connect(path)
        names = {"messages": "agent_service_session_messages", "sessions": "agent_service_sessions"}

        async def read(*names_of: str) -> None:
            for name in names_of:
                given = key.hex if name == LAST else LISTER
                raw.execute(STATEMENTS[name].format("?", **names), (given,)).fetchall()

        await measure(database, key, "SQLite", reads(read))
        raw.close()
        await database.close()


async def on_postgres(server: PostgresServer) -> None:
    """Beside asyncpg."""
    database = DatabaseManager(server.database_url("postgres"))
    key = await fill(database)
    raw = await asyncpg.connect(server.url)
    await raw.execute("VACUUM ANALYZE", timeout=120)
    names = {"messages": "agent_service.session_messages", "sessions": "agent_service.sessions"}

    async def read(*names_of: str) -> None:
        for name in names_of:
            await raw.fetch(STATEMENTS[name].format("$1", **names), key if name == LAST else LISTER)

    async with raw.transaction():
        await measure(database, key, "PostgreSQL", reads(read))
    await raw.close()
    await database.close()


def reads(read: Callable[..., Awaitable[object]]) -> Reads:
    """Return a driver's reads."""
    return {LAST: partial(read, LAST), LIST: partial(read, LIST), PAGE: partial(read, PAGE, LIST)}


def run() -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    asyncio.run(on_sqlite())
    with running_postgres(durable=True) as server:
        asyncio.run(on_postgres(server))


if __name__ == "__main__":
    run()
