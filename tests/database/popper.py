"""A process that pops a session's messages until there are none, and prints their numbers."""

import asyncio
import sys

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository


async def pop(url: str, session_id: str) -> None:
    """Pop with ten tasks."""
    database = DatabaseManager(url)

    async def one() -> None:
        while True:
            async with database.session() as db:
                popped = await SessionRepository(db).pop_message(session_id)
            if popped is None:
                return
            print(popped.seq, flush=True)  # noqa: T201 - it is what the test reads

    await asyncio.gather(*(one() for _ in range(10)))
    await database.close()


if __name__ == "__main__":
    asyncio.run(pop(*sys.argv[1:]))
