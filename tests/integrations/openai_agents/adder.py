"""
Adds turns to one session: ``python -m tests.integrations.openai_agents.adder URL SESSION NAME TURNS WAY``.

Every turn is two appends: what the user said with a call, then its output with an answer. ``WAY`` is ``repository`` or
``writer``. Before each append it reads a line, and after it prints a number: 2 * turn, and 2 * turn + 1.
"""

import asyncio
import sys
import warnings
from contextlib import AsyncExitStack
from typing import Any

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession
from tests.integrations.openai_agents.samples import call, output, reasoning, reply, said

__all__ = ["appends_of"]


def appends_of(name: str, turn: int) -> list[list[Any]]:
    """Return the two lists of items that a process adds for a turn."""
    id_ = f"{name}.{turn}"
    return [
        [{"id": f"user_{id_}", **said(id_)}, reasoning(f"rs_{id_}"), call(f"c{id_}", f"fc_{id_}")],
        [{"id": f"out_{id_}", **output(f"c{id_}")}, reply(id_, f"msg_{id_}")],
    ]


async def add(url: str, session_id: str, name: str, turns: int, way: str) -> None:
    """Add the turns, one after the other."""
    async with AsyncExitStack() as stack:
        database = DatabaseManager(url)
        stack.push_async_callback(database.close)
        writer = await stack.enter_async_context(SessionWriter(database)) if way == "writer" else None
        for turn in range(turns):
            for part, items in enumerate(appends_of(name, turn)):
                await asyncio.to_thread(sys.stdin.readline)
                session = DatabaseSession(session_id, user_id="ada", database=database, writer=writer)
                await session.add_items(items)
                print(2 * turn + part, flush=True)  # noqa: T201 - it is what the test reads


if __name__ == "__main__":
    warnings.simplefilter("error")
    target, chat, label, count, path = sys.argv[1:]
    asyncio.run(add(target, chat, label, int(count), path))
