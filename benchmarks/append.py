"""
What appending a message costs, against raw drivers doing the same work: ``python -m benchmarks.append``.

The raw statement is the package's own (counter, message, expiry in one), on a server that fsyncs each commit. One raw
candidate sends it alone, as a transaction by itself, which is what SessionWriter does; another sends BEGIN and COMMIT
around it, as a transaction that can be rolled back must; a third takes its connection from the pool of asyncpg each
time, as a service does, and as get_session does.
"""

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from agent_service.infrastructure.database.append.postgres import APPEND_ONE
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.names import DEFAULT_SCHEMA, TableNames
from agent_service.infrastructure.database.repositories import SessionRepository
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

RAW_APPEND = TableNames(DEFAULT_SCHEMA, "").render(APPEND_ONE)
MESSAGE = {"role": "user", "content": "Help me debug this code, please. " * 6}
DAY = timedelta(hours=24)
CALLS = 300
TASKS = 100
TURNS = 20
"""Messages of each task where waiting times are measured."""


async def new_session(database: DatabaseManager) -> UUID:
    """Store a session to append to."""
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="bench"))).id


async def append_raw(connection: "asyncpg.Connection[asyncpg.Record]", session_id: UUID) -> None:
    """Send the statement that the repository sends."""
    now = datetime.now(UTC)
    text = json.dumps(MESSAGE)
    role, content = MESSAGE["role"], MESSAGE["content"]
    await connection.fetchrow(
        RAW_APPEND, session_id, "", None, role, content, text, None, now, now + DAY, None, None
    )  # fmt: skip


async def append_ours(database: DatabaseManager, session_id: UUID) -> None:
    """Append as the documentation shows it."""
    async with database.session() as db:
        await SessionRepository(db).add_message_to_session(session_id, MESSAGE)


async def one_after_another(server: PostgresServer) -> dict[str, float]:
    """One session, one task: each append waits for its commit."""
    database = DatabaseManager(server.database_url("postgres"))
    pool = await asyncpg.create_pool(server.url, min_size=1, max_size=1)
    connection = await asyncpg.connect(server.url)
    sessions = {name: await new_session(database) for name in ("alone", "transaction", "pool", "ours", "written")}
    writer = SessionWriter(database)

    async def alone() -> None:
        await append_raw(connection, sessions["alone"])

    async def transaction() -> None:
        async with connection.transaction():
            await append_raw(connection, sessions["transaction"])

    async def pooled() -> None:
        async with pool.acquire() as pooled_connection, pooled_connection.transaction():
            await append_raw(pooled_connection, sessions["pool"])

    async def ours() -> None:
        await append_ours(database, sessions["ours"])

    async def written() -> None:
        await writer.append(sessions["written"], MESSAGE)

    candidates: dict[str, Callable[[], Awaitable[None]]] = {
        "asyncpg, the statement alone": alone,
        "asyncpg, in a transaction": transaction,
        "asyncpg, in a transaction, from its pool": pooled,
        "agent_service, get_session and append": ours,
        "agent_service, SessionWriter": written,
    }
    try:
        async with writer:
            return await seconds_per_call(candidates, calls=CALLS)
    finally:
        await connection.close()
        await pool.close()
        await database.close()


async def from_many_tasks(server: PostgresServer) -> dict[str, float]:
    """A hundred sessions, a hundred tasks, fifteen connections each."""
    database = DatabaseManager(server.database_url("postgres"))
    pool = await asyncpg.create_pool(server.url, min_size=15, max_size=15)
    sessions = [await new_session(database) for _ in range(TASKS)]

    async def pooled(session_id: UUID) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await append_raw(connection, session_id)

    async def ours(session_id: UUID) -> None:
        await append_ours(database, session_id)

    def together(append: Callable[[UUID], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            await asyncio.gather(*map(append, sessions))

        return call

    candidates = {
        "asyncpg, in a transaction, from its pool": together(pooled),
        "agent_service, get_session and append": together(ours),
    }
    try:
        seconds = await seconds_per_call(candidates, calls=5)
        return {name: each / TASKS for name, each in seconds.items()}
    finally:
        await pool.close()
        await database.close()


async def waits(url: str) -> list[float]:
    """Return the seconds of each append, in order, where 100 tasks share the pool of 15 and ask again and again."""
    database = DatabaseManager(url)
    sessions = [await new_session(database) for _ in range(TASKS)]
    taken: list[float] = []

    async def many(session_id: UUID, turns: int) -> None:
        for _ in range(turns):
            started = time.perf_counter()
            await append_ours(database, session_id)
            taken.append(time.perf_counter() - started)

    try:
        await asyncio.gather(*(many(each, 1) for each in sessions))  # opens the connections
        taken.clear()
        await asyncio.gather(*(many(each, TURNS) for each in sessions))
    finally:
        await database.close()
    return sorted(taken)


def print_waits(taken: list[float]) -> None:
    """Print how long the slowest of 100 appends takes against the median."""
    p50, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.99))
    print(f"  p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms: {p99 / p50:.2f} x (promised: at most 4)")


async def on_sqlite() -> dict[str, float]:
    """One session, one task, on the embedded engine."""
    with tempfile.TemporaryDirectory() as folder:
        database = DatabaseManager(f"sqlite+aiosqlite:///{folder}/bench.db")
        session_id = await new_session(database)

        async def ours() -> None:
            await append_ours(database, session_id)

        try:
            return await seconds_per_call({"agent_service, get_session and append": ours}, calls=CALLS)
        finally:
            await database.close()


def run() -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(migrate(server))
        print_ratios("Append to PostgreSQL, one task", asyncio.run(one_after_another(server)))
        print_ratios(f"Append to PostgreSQL, {TASKS} tasks and sessions", asyncio.run(from_many_tasks(server)))
        print_waits(asyncio.run(waits(server.database_url("postgres"))))
    print_ratios("Append to SQLite, one task", asyncio.run(on_sqlite()))


async def migrate(server: PostgresServer) -> None:
    """Make the tables."""
    database = DatabaseManager(server.database_url("postgres"))
    await database.upgrade()
    await database.close()


if __name__ == "__main__":
    run()
