"""
A step of a graph, saved by our saver and by AsyncPostgresSaver in one run: ``python -m benchmarks.langgraph_peers``.

A step is what a graph saves in it: ``aput_writes`` of one task, then ``aput`` of the checkpoint, each after the other
has ended. The server fsyncs each commit. Both savers have fifteen connections.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph.saver import AgentServiceSaver
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

TASKS = (1, 64)
CONNECTIONS = 15
HISTORY = [
    message for turn in range(5) for message in (HumanMessage(f"Question {turn}?"), AIMessage("An answer. " * 30))
]


class Thread:
    """One conversation, which saves step after step as the loop of a graph does."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self._saver = saver
        self._config: Any = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
        self._versions: dict[str, Any] = {}
        self._steps = itertools.count()

    async def step(self) -> None:
        """Save a step."""
        step = next(self._steps)
        if step:
            writes = [("messages", HISTORY[-1]), ("branch:to:tools", None)]
            await self._saver.aput_writes(self._config, writes, str(uuid4()), "~__pregel_pull, agent")
        new = {
            name: self._saver.get_next_version(self._versions.get(name), None)
            for name in ("messages", "branch:to:tools")
        }
        self._versions |= new
        checkpoint: Any = {
            "v": 4,
            "id": str(uuid6(clock_seq=step)),
            "ts": "2026-12-01T12:00:00+00:00",
            "channel_values": {"messages": HISTORY, "branch:to:tools": None, "topic": "trains"},
            "channel_versions": dict(self._versions),
            "versions_seen": {"agent": dict(self._versions), "tools": {}},
            "updated_channels": sorted(new),
        }
        self._config = await self._saver.aput(self._config, checkpoint, {"source": "loop", "step": step}, new)


def together(threads: list[Thread]) -> Callable[[], Awaitable[None]]:
    """Return a call that saves a step of each thread, all at the same time."""

    async def call() -> None:
        await asyncio.gather(*(thread.step() for thread in threads))

    return call


async def compare(server: PostgresServer, tasks: int) -> dict[str, float]:
    """Return the median seconds of a step, with so many threads at the same time."""
    database = DatabaseManager(server.database_url("postgres"), pool_size=CONNECTIONS, max_overflow=0)
    options: Any = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    url = server.database_url("postgres").replace("+asyncpg", "")
    async with (
        AgentServiceSaver(database) as ours,
        AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options, open=False) as pool,
    ):
        theirs = AsyncPostgresSaver(cast("Any", pool))  # its rows are dicts, as the option says
        await theirs.setup()
        candidates = {
            "AsyncPostgresSaver": together([Thread(theirs) for _ in range(tasks)]),
            "AgentServiceSaver": together([Thread(ours) for _ in range(tasks)]),
        }
        for call in candidates.values():
            await call()
        seconds = await seconds_per_call(candidates, calls=max(200 // tasks, 4))
    await database.close()
    return {name: each / tasks for name, each in seconds.items()}


async def measure(server: PostgresServer) -> None:
    """Print the tables."""
    database = DatabaseManager(server.database_url("postgres"))
    await database.upgrade()
    await database.close()
    for tasks in TASKS:
        seconds = await compare(server, tasks)
        print_ratios(f"aput_writes and aput on PostgreSQL, {tasks} at the same time", seconds)
        print(f"  {seconds['AsyncPostgresSaver'] / seconds['AgentServiceSaver']:.2f} times as fast")


def run() -> None:
    """Start a server and measure."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(measure(server))


if __name__ == "__main__":
    run()
