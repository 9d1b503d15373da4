"""A process of writers for the tests: ``python -m tests.database.writer URL SESSION_ID NAME TASKS MESSAGES``."""

import asyncio
import sys
import warnings

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository


async def write(url: str, session_id: str, name: str, tasks: int, messages: int) -> None:
    """Append ``messages`` messages from each of ``tasks`` tasks, each in a transaction of its own."""
    database = DatabaseManager(url, pool_size=tasks)

    async def one(task: int) -> None:
        for number in range(messages):
            async with database.session() as db:
                message = {"role": "user", "content": f"{name}-{task}-{number}", "token_count": 1}
                await SessionRepository(db).add_message_to_session(session_id, message)

    await asyncio.gather(*map(one, range(tasks)))
    await database.close()


if __name__ == "__main__":
    warnings.simplefilter("error")
    target, session, label, tasks_each, messages_each = sys.argv[1:]
    asyncio.run(write(target, session, label, int(tasks_each), int(messages_each)))
