"""
Sessions of the OpenAI Agents SDK on PostgreSQL, against its own: ``python -m benchmarks.openai_peers``.

The server fsyncs every commit. An append is what a turn with a tool adds: a call and its output, with new ids each
time. With 64 tasks each has a session of its own. Reading asks for the last 50 items of a session that holds 100,
and of one that holds 10,000.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from typing import Any

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession
from benchmarks.append import migrate
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

Open = Callable[[str], Any]
"""Opens the session of an id."""

WRITER = "DatabaseSession, with a SessionWriter"
ALONE = "DatabaseSession"
PEER = "SQLAlchemySession of the SDK"
PEERS = "peers"
"""The SDK's database."""
TASKS = 64
WANTED = {1: 3, TASKS: 10}
LAST = 50
LENGTHS = (100, 10_000)
TURNS = 4
"""Appends of each task in one measurement of many tasks."""

_numbers = count()


def turn() -> list[Any]:
    """Return a call and its output, with ids of their own."""
    name = f"{next(_numbers):024d}"
    arguments = '{"city":"Tromsø","days":3,"units":"metric"}'
    text = "Snow all week, with winds from the north and sunshine on Thursday. " * 4
    return [
        {
            "type": "function_call",
            "id": f"fc_{name}",
            "call_id": f"call_{name}",
            "name": "weather",
            "arguments": arguments,
        },
        {"type": "function_call_output", "call_id": f"call_{name}", "output": text},
    ]


async def stores(stack: AsyncExitStack, server: PostgresServer) -> dict[str, Open]:
    """Open ours, by a writer and by the repository, and the SDK's."""
    database = DatabaseManager(server.database_url("postgres"))
    stack.push_async_callback(database.close)
    writer = await stack.enter_async_context(SessionWriter(database))
    engine = create_async_engine(server.database_url(PEERS), pool_size=5, max_overflow=10)
    stack.push_async_callback(engine.dispose)
    await SQLAlchemySession("tables", engine=engine, create_tables=True).get_items()
    return {
        WRITER: lambda id_: DatabaseSession(f"written {id_}", user_id="bench", database=database, writer=writer),
        ALONE: lambda id_: DatabaseSession(id_, user_id="bench", database=database),
        PEER: lambda id_: SQLAlchemySession(id_, engine=engine),
    }


async def appends(server: PostgresServer, tasks: int) -> dict[str, float]:
    """Return the seconds of an append when so many tasks append."""
    async with AsyncExitStack() as stack:
        candidates: dict[str, Callable[[], Awaitable[object]]] = {}
        for name, open_ in (await stores(stack, server)).items():
            sessions = [open_(f"{tasks}-{task}") for task in range(tasks)]
            for session in sessions:
                await session.add_items(turn())
            candidates[name] = together(sessions)
        calls, each = (20, 1) if tasks == 1 else (1, tasks * TURNS)
        seconds = await seconds_per_call(candidates, calls=calls, rounds=15)
        return {name: taken / each for name, taken in seconds.items()}


def together(sessions: list[Any]) -> Callable[[], Awaitable[object]]:
    """Return what has each session append at the same time as the others."""

    async def one(session: Any) -> None:
        for _ in range(TURNS if len(sessions) > 1 else 1):
            await session.add_items(turn())

    return lambda: asyncio.gather(*map(one, sessions))


async def reads(server: PostgresServer) -> dict[str, float]:
    """Return the seconds that the last items take, by store and length of the session."""
    async with AsyncExitStack() as stack:
        candidates: dict[str, Callable[[], Awaitable[object]]] = {}
        found = await stores(stack, server)
        for name in (ALONE, PEER):
            for length in LENGTHS:
                session = found[name](f"of {length}")
                for _ in range(length // 100):
                    await session.add_items([item for _ in range(50) for item in turn()])
                assert len(await session.get_items(LAST)) == LAST
                candidates[f"{name}, of {length:,}"] = partial(session.get_items, LAST)
        return await seconds_per_call(candidates, calls=20, rounds=15)


def run() -> None:
    """Print the tables."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(migrate(server))
        server.create_database(PEERS)
        for tasks, wanted in WANTED.items():
            seconds = asyncio.run(appends(server, tasks))
            print_ratios(f"add_items to PostgreSQL, {tasks} task(s)", seconds)
            ratio = seconds[PEER] / seconds[WRITER]
            print(f"  {WRITER} is {ratio:.2f} x {PEER} (wanted: at least {wanted:g})")
        seconds = asyncio.run(reads(server))
        print_ratios(f"get_items({LAST})", seconds)
        short, long = (seconds[f"{ALONE}, of {length:,}"] for length in LENGTHS)
        print(f"  {LENGTHS[1]:,} items take {long / short:.2f} x as long as {LENGTHS[0]} (wanted: 1)")


if __name__ == "__main__":
    run()
