"""
What an acknowledged message costs through SessionWriter, against raw asyncpg and other session stores.

``python -m benchmarks.sessions_write``. The servers fsync every commit. The raw candidates send the statement that the
repository sends (counter, message, expiry in one): alone, so that it is a transaction of its own and one round trip, as
SessionWriter sends it; and from one task also with BEGIN and COMMIT around it, on a connection of the pool, as a
transaction of the caller's is, which get_session gives. 100 tasks share a pool of 16 connections. On SQLite what
SessionWriter left to be indexed for search is indexed between the measurements, and measured apart.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import index_messages
from benchmarks.append import MESSAGE, append_ours, append_raw, migrate, new_session
from benchmarks.session_peers import Adk, OpenAiSqlAlchemy, OpenAiSqlite, Peer, installed
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

Append = Callable[[int], Awaitable[object]]
Promises = list[tuple[str, str, float]]

RAW = "asyncpg, statement by statement"
IN_TRANSACTION = "asyncpg, in a transaction, from its pool"
WRITER = "agent_service, SessionWriter"
REPOSITORY = "agent_service, get_session and append"
ALONE: Promises = [(WRITER, RAW, 0.8), (WRITER, OpenAiSqlAlchemy.name, 3)]
TOGETHER: Promises = [(WRITER, RAW, 2), (WRITER, OpenAiSqlAlchemy.name, 15), (WRITER, Adk.name, 15)]
EMBEDDED: Promises = [(WRITER, OpenAiSqlite.name, 8)]

TASKS = 100
CONNECTIONS = 16
PEERS = "peers"
"""The other stores' database: their tables' names are ours too."""
ONE_BY_ONE = 50
ROUNDS = 15
TURNS = 5
"""Messages of each task in one measurement of many tasks."""


async def measure(
    candidates: dict[str, Append], tasks: int, between: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
) -> dict[str, float]:
    """Return the seconds that a message takes when so many tasks append, each to a session of its own."""

    def together(append: Append) -> Callable[[], Awaitable[None]]:
        async def one(task: int) -> None:
            for _ in range(TURNS if tasks > 1 else 1):
                await append(task)

        async def call() -> None:
            await asyncio.gather(*map(one, range(tasks)))

        return call

    calls, messages = (1, tasks * TURNS) if tasks > 1 else (ONE_BY_ONE, 1)
    calls_of = {name: together(each) for name, each in candidates.items()}
    seconds = await seconds_per_call(calls_of, calls=calls, rounds=ROUNDS, between=between)
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

    return {WRITER: by_writer, REPOSITORY: by_repository}


async def on_postgres(server: PostgresServer, tasks: int) -> dict[str, float]:
    """The raw statement, ours, and the others."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            asyncpg.create_pool(server.url, min_size=min(tasks + 1, CONNECTIONS), max_size=CONNECTIONS)
        )
        database = DatabaseManager(server.database_url("postgres"))
        stack.push_async_callback(database.close)
        sessions = [await new_session(database) for _ in range(tasks)]

        async def pooled(task: int) -> None:
            async with pool.acquire() as connection:
                await append_raw(connection, sessions[task])

        async def in_transaction(task: int) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await append_raw(connection, sessions[task])

        candidates: dict[str, Append] = {RAW: pooled}
        if tasks == 1:
            only = await stack.enter_async_context(pool.acquire())
            candidates = {RAW: lambda task: append_raw(only, sessions[task]), IN_TRANSACTION: in_transaction}
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
        indexed = spent = 0.0

        async def index() -> None:
            nonlocal indexed, spent
            started = time.perf_counter()
            found = await index_messages(database)
            if found >= TASKS:
                indexed, spent = indexed + found, spent + time.perf_counter() - started

        seconds = await measure(candidates, tasks, between=index)
        if indexed:
            print(f"  (indexing for search what SessionWriter stored: {spent / indexed * 1e9:,.0f} ns a message)")
        return seconds


def compare(seconds: dict[str, float], promises: Promises) -> None:
    """Print how much faster one candidate is than another, and what was promised."""
    for fast, slow, least in promises:
        if slow in seconds:
            print(f"  {fast} is {seconds[slow] / seconds[fast]:.2f} x {slow} (promised: at least {least:g})")


def run() -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(migrate(server))
        server.create_database(PEERS)
        for tasks, promises in ((1, ALONE), (TASKS, TOGETHER)):
            seconds = asyncio.run(on_postgres(server, tasks))
            print_ratios(f"A message to PostgreSQL, {tasks} task(s)", seconds)
            compare(seconds, promises)
            if tasks == 1:
                compare(seconds, [(REPOSITORY, IN_TRANSACTION, 0.8)])
    for tasks in (1, TASKS):
        seconds = asyncio.run(on_sqlite(tasks))
        print_ratios(f"A message to SQLite, {tasks} task(s)", seconds)
        compare(seconds, EMBEDDED if tasks > 1 else [])


if __name__ == "__main__":
    run()
