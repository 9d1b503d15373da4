"""A process whose tasks all ask for one session at once, and print its id."""

import asyncio
import sys

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository


async def get(url: str) -> None:
    """Ask with fifty tasks."""
    database = DatabaseManager(url)

    async def one() -> None:
        async with database.session() as db:
            session = await SessionRepository(db, "acme").get_or_create("chat", user_id="ada")
        print(session.id, flush=True)  # noqa: T201 - it is what the test reads

    await asyncio.gather(*(one() for _ in range(50)))
    await database.close()


if __name__ == "__main__":
    asyncio.run(get(*sys.argv[1:]))
