"""A process that upgrades a database and prints what it does: ``... URL REVISION``."""

import asyncio
import sys
from functools import partial

from agent_service.infrastructure.database.engine import DatabaseManager


async def main(url: str, revision: str) -> None:
    """Upgrade, each line of the report at once."""
    database = DatabaseManager(url)
    await database.upgrade(revision, report=partial(print, flush=True))
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
