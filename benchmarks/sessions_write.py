"""
What an acknowledged message costs through SessionWriter, against raw asyncpg and other session stores.

``python -m benchmarks.sessions_write``. The servers fsync every commit. The raw candidate sends the statement that the
repository sends (counter, message, expiry in one), each as a transaction of its own, from a pool of 16 connections.
"""

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.writer import SessionWriter
from benchmarks.append import MESSAGE, append_ours, append_raw, migrate, new_session
from benchmarks.session_peers import Adk, OpenAiSqlAlchemy, OpenAiSqlite, Peer, installed
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

Append = Callable[[int], Awaitable[object]]

TASKS = 100
CONNECTIONS = 16
PEERS = "peers"
"""The other stores' database: their tables' names are ours too."""
ONE_BY_ONE = 100
TURNS = 5
"""Messages of each task in one measurement of many tasks."""


async def measure(candidates: dict[str, Append], tasks: int) -> dict[str, float]:
    """Give the seconds that a message takes when so many tasks append, each to a session of its own."""

    def together(append: Append) -> Callable[[], Awaitable[None]]:
        async def one(task: int) -> None:
            for _ in range(TURNS if tasks > 1 else 1):
                await append(task)

        async def call() -> None:
            await asyncio.gather(*map(one, range(tasks)))

        return call

    calls, messages = (1, tasks * TURNS) if tasks > 1 else (ONE_BY_ONE, 1)
    seconds = await seconds_per_call({name: together(each) for name, each in candidates.items()}, calls=calls)
    return {name: each / messages for name, each in seconds.items()}


async def peers(stack: AsyncExitStack, kinds: list[type[Peer]], url: str, tasks: int) -> dict[str, Append]:
    """Open those other session stores that are installed."""
    found: dict[str, Append] = {}
    for kind in kinds:
        if not installed(kind):
            print(f"  (not measured: {kind.name}; pip install {kind.package})")
            continue
        found[kind.name] = (await stack.enter_async_context(kind(url, tasks))).append
    return found


async def ours(stack: AsyncExitStack, database: DatabaseManager, tasks: int) -> dict[str, Append]:
    """Open the writer, and sessions for it and for the repository."""
    writer = await stack.enter_async_context(SessionWriter(database))
    written = [await new_session(database) for _ in range(tasks)]
    single = [await new_session(database) for _ in range(tasks)]

    async def by_writer(task: int) -> object:
        return await writer.append(written[task], MESSAGE)

    async def by_repository(task: int) -> None:
        await append_ours(database, single[task])

    return {"agent_service, SessionWriter": by_writer, "agent_service, get_session and append": by_repository}


async def on_postgres(server: PostgresServer, tasks: int) -> dict[str, float]:
    """The raw statement, ours, and the others."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            asyncpg.create_pool(server.url, min_size=min(tasks, CONNECTIONS), max_size=min(tasks, CONNECTIONS))
        )
        database = DatabaseManager(server.database_url("postgres"))
        stack.push_async_callback(database.close)
        sessions = [await new_session(database) for _ in range(tasks)]

        async def raw(task: int) -> None:
            async with pool.acquire() as connection:
                await append_raw(connection, sessions[task])

        candidates: dict[str, Append] = {"asyncpg, statement by statement": raw}
        candidates |= await ours(stack, database, tasks)
        candidates |= await peers(stack, [OpenAiSqlAlchemy, Adk], server.database_url(PEERS), tasks)
        return await measure(candidates, tasks)


async def on_sqlite(tasks: int) -> dict[str, float]:
    """Ours, and the others, each in a file of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = DatabaseManager(f"sqlite+aiosqlite:///{folder}/ours.db")
        stack.push_async_callback(database.close)
        candidates = await ours(stack, database, tasks)
        candidates |= await peers(stack, [OpenAiSqlite], f"{folder}/openai.db", tasks)
        return await measure(candidates, tasks)


def run() -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(migrate(server))
        server.create_database(PEERS)
        for tasks in (1, TASKS):
            print_ratios(f"A message to PostgreSQL, {tasks} task(s)", asyncio.run(on_postgres(server, tasks)))
    for tasks in (1, TASKS):
        print_ratios(f"A message to SQLite, {tasks} task(s)", asyncio.run(on_sqlite(tasks)))


if __name__ == "__main__":
    run()
