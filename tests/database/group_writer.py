"""
A process that appends through one SessionWriter.

Every task appends its messages to one session or another, under client ids; some callers leave at a random moment and
come back. What was acknowledged is printed at once: client id, session, number.
"""

import asyncio
import os
import random
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from zlib import crc32

from agent_service.core.errors import DatabaseError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager


async def write(url: str, name: str, tasks: int, messages: int, sessions: list[str]) -> None:
    """Append ``messages`` messages from each of ``tasks`` tasks until each was acknowledged."""
    database = DatabaseManager(url)
    async with SessionWriter(database) as writer:
        await asyncio.gather(*(_one(writer, f"{name}-{task}", messages, sessions) for task in range(tasks)))
    await database.close()


async def _one(writer: SessionWriter, name: str, messages: int, sessions: list[str]) -> None:
    chance = random.Random(name)
    for number in range(messages):
        client_id = f"{name}-{number}"
        session = sessions[crc32(client_id.encode()) % len(sessions)]
        message = {"role": "user", "content": client_id, "token_count": number}
        stored = None
        while stored is None:
            patience = chance.uniform(0, 0.02) if chance.random() < 0.3 else None
            try:
                async with asyncio.timeout(patience):
                    stored = await writer.append(session, message, client_id=client_id)
            except (TimeoutError, DatabaseError):
                await asyncio.sleep(chance.uniform(0, 0.02))
        print(client_id, session, stored.seq, flush=True)  # noqa: T201


def run(out: Connection, surroundings: Mapping[str, str], arguments: tuple[str, str, int, int, list[str]]) -> None:
    """Be such a process: print to ``out``, and take the environment of whoever asked for it."""
    os.dup2(out.fileno(), 1)
    os.environ.clear()
    os.environ.update(surroundings)
    reset_settings()
    warnings.simplefilter("error")
    asyncio.run(write(*arguments))
