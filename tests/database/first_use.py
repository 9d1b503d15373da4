"""A process that uses the embedded default of a folder when its input ends: ``... FOLDER``."""

import asyncio
import os
import sys
import warnings

from agent_service.infrastructure.database import close_database, get_session
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository


async def main() -> None:
    """Store a session in a database that has to be made first."""
    async with get_session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
    await close_database()


if __name__ == "__main__":
    warnings.simplefilter("error")
    os.chdir(sys.argv[1])
    sys.stdin.read()
    asyncio.run(main())
