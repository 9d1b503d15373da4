"""
Searching a user's sessions, beside the plain statements of each engine: ``python -m benchmarks.search``.

One user has 3,000 sessions of 100 messages of 12 words; one message in ten says "platform", one of all says "zanzibar",
none says "nowhere". ``--scale 0.1`` makes a tenth of the sessions. Ours reads the latest 20 sessions with the word; the
plain statements only count the messages.
"""

import argparse
import asyncio
import logging
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import index_messages
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

SESSIONS, MESSAGES, USER = 3_000, 100, "ada"
TERMS = {"platform": "in a tenth of the messages", "zanzibar": "in one message", "nowhere": "in none"}
LIKE = "SELECT count(*) FROM agent_service_session_messages WHERE content LIKE ?"
MATCH = "SELECT count(*) FROM agent_service_session_search WHERE agent_service_session_search MATCH ?"
ILIKE = "SELECT count(*) FROM agent_service.session_messages WHERE content ILIKE $1"


def texts(sessions: int) -> Iterator[list[str]]:
    """Return the messages of each session."""
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(3, 9))) for _ in range(3_000)]
    for n in range(sessions):
        said = [" ".join(dice.choices(words, k=12)) for _ in range(MESSAGES)]
        yield [
            each + " platform" * (dice.random() < 0.1) + " zanzibar" * (n == sessions // 2 and seq == 7)
            for seq, each in enumerate(said)
        ]


async def fill(database: DatabaseManager, sessions: int) -> None:
    """Store what is searched, and index it."""
    await database.upgrade()
    for n, contents in enumerate(texts(sessions)):
        async with database.session() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(user_id=USER, title=f"Session {n}"))
            messages: list[dict[str, Any]] = [{"role": "user", "content": each} for each in contents]
            await repo.add_messages_to_session(session.id, messages)
    await index_messages(database)


async def measure(database: DatabaseManager, title: str, plain: dict[str, Callable[[str], Awaitable[object]]]) -> None:
    """Print a table for each term."""
    async with database.session() as db:
        repo = SessionRepository(db)
        ours = {"agent_service, search_sessions": lambda term: repo.search_sessions(USER, term)}
        for term, share in TERMS.items():
            print_ratios(f"{title}: a word {share}", await seconds_per_call(ours | plain, term, calls=3))


async def on_sqlite(sessions: int) -> None:
    """Beside LIKE, and the index alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        database = DatabaseManager(f"sqlite+aiosqlite:///{path}")
        await fill(database, sessions)
        raw = sqlite3.connect(path)

        async def like(term: str) -> object:
            return raw.execute(LIKE, (f"%{term}%",)).fetchall()

        async def match(term: str) -> object:
            return raw.execute(MATCH, (f'"{term}"',)).fetchall()

        await measure(database, "Search on SQLite", {"LIKE": like, "FTS5's own count": match})
        raw.close()
        await database.close()


async def on_postgres(server: PostgresServer, sessions: int) -> None:
    """Beside ILIKE, which uses the same index."""
    database = DatabaseManager(server.database_url("postgres"))
    await fill(database, sessions)
    raw = await asyncpg.connect(server.url)
    await raw.execute("VACUUM ANALYZE", timeout=120)
    await measure(database, "Search on PostgreSQL", {"ILIKE": lambda term: raw.fetchval(ILIKE, f"%{term}%")})
    await raw.close()
    await database.close()


def run(scale: float = 0.1) -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    sessions = max(int(SESSIONS * scale), 50)
    asyncio.run(on_sqlite(sessions))
    with running_postgres(durable=True) as server:
        asyncio.run(on_postgres(server, sessions))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much data, 1 being what is described")
    run(parser.parse_args().scale)
