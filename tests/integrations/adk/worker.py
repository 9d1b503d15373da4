"""
An agent's process: ``python -m tests.integrations.adk.worker URL NAME COUNT``.

It appends numbered events to the one session that all workers share, each with state of the session and of the user,
reads the session again where another was faster, and prints how many were stored before, then what was acknowledged.
It ends when all is stored and its input has ended: one that is to be killed cannot end before.
"""

import asyncio
import sys

from google.adk.errors import StaleSessionError
from google.adk.sessions.session import Session

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService
from tests.integrations.adk.said import APP, USER, said


async def work(url: str, name: str, number: int) -> None:
    database = DatabaseManager(url)
    async with AdkSessionService(database) as service:

        async def fresh() -> Session:
            found = await service.get_session(app_name=APP, user_id=USER, session_id="shared")
            assert found is not None
            return found

        session = await fresh()
        begun = session.state.get(name, 0)
        print(begun, flush=True)  # noqa: T201
        for place in range(begun + 1, number + 1):
            state: dict[str, object] = {name: place} if place % 2 else {name: place, f"user:{name}": place}
            event = said(f"{name} {place}", state=state)
            while True:
                try:
                    await service.append_event(session, event)
                except StaleSessionError:
                    session = await fresh()
                else:
                    break
            print(name, place, flush=True)  # noqa: T201
    await database.close()


if __name__ == "__main__":
    url, name, count = sys.argv[1:]
    asyncio.run(work(url, name, int(count)))
    sys.stdin.read()
