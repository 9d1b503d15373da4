"""A process that saves contexts: ``... save FOLDER USER... | race KIND PLACE ROUNDS NUMBER``."""

import asyncio
import contextlib
import sys

from agent_service.core.errors import StateConflictError
from agent_service.state.file import FileStateStore
from agent_service.state.interface import StateStore
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore
from tests.support.forked import wait_for_the_others


def open_store(kind: str, place: str) -> StateStore:
    """Open the store that the parent process opened."""
    if kind == "file":
        return FileStateStore(place)
    if kind == "sql":
        return SQLStateStore(place)
    if kind == "redis":
        return RedisStateStore(place, timeout=10)
    raise ValueError(kind)


async def save(folder: str, *users: str) -> None:
    """Save contexts that show their version all through, until somebody kills this process."""
    store = open_store("file", folder)
    while True:
        for user_id in users:
            present = await store.load_context(user_id)
            version = 1 if present is None else present.version + 1
            context = CoachContext(user_id=user_id, metadata={"versions": [version] * 3_000})
            await store.save_context(context, expected_version=version - 1)
            sys.stdout.write(f"{user_id} {version}\n")
            sys.stdout.flush()


async def race(kind: str, place: str, rounds: str, number: str) -> None:
    """Save each version of the user ``shared`` once, from several tasks, if nobody else has; say which were ours."""
    wait_for_the_others()
    async with open_store(kind, place) as store:

        async def attempt(expected: int, task: int) -> None:
            context = CoachContext(user_id="shared", metadata={"by": [int(number), task]})
            with contextlib.suppress(StateConflictError):
                await store.save_context(context, expected_version=expected)
                sys.stdout.write(f"{context.version}\n")
                sys.stdout.flush()

        for _ in range(int(rounds)):
            present = await store.load_context("shared")
            await asyncio.gather(*(attempt(0 if present is None else present.version, task) for task in range(3)))


if __name__ == "__main__":
    job, *arguments = sys.argv[1:]
    asyncio.run(save(*arguments) if job == "save" else race(*arguments))
