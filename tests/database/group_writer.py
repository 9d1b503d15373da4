"""
Appends through one SessionWriter: ``python -m tests.database.group_writer URL NAME TASKS MESSAGES SESSION...``.

Every task appends its messages to one session or another, under client ids; some callers leave at a random moment and
come back. What was acknowledged is printed at once: client id, session, number. The process ends when all is stored
and its input has ended: one that is to be killed cannot end before.
"""

import asyncio
import random
import sys
import warnings
from zlib import crc32

from agent_service.core.errors import DatabaseError
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


if __name__ == "__main__":
    warnings.simplefilter("error")
    target, label, tasks_each, messages_each, *ids = sys.argv[1:]
    asyncio.run(write(target, label, int(tasks_each), int(messages_each), ids))
    sys.stdin.read()
