"""A process that imports, and prints a line for each page that is done; killed at any moment."""

import asyncio
import sys

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.importing import ImportReport, Options, import_openai


async def main(source: str, target: str) -> None:
    database = DatabaseManager(target)

    def tell(report: ImportReport) -> None:
        sys.stdout.write(f"{report.earlier + report.conversations}\n")
        sys.stdout.flush()

    await import_openai(source, user_id="ada", options=Options(database=database, progress=tell))
    await database.close()


asyncio.run(main(sys.argv[1], sys.argv[2]))
