"""A process of its own: ``python -m tests.outbox.worker commit KEY... | drain | run | take SECONDS``."""

import asyncio
import sys
from datetime import timedelta

import agent_service.infrastructure.database.outbox as outbox_table
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.database.connection import close_database, get_session
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in, run_outbox

NAMESPACE = "users"


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def commit_and_hang(keys: list[str]) -> None:
    """Commit one row for each key, and drain none of them."""
    async with get_session() as db:
        for key in keys:
            invalidate_in(db, keys=[key], namespace=NAMESPACE)
    say("committed")
    await asyncio.Event().wait()


async def drain_until_told_to_stop() -> None:
    """Drain again and again until standard input ends; then say how many rows that was."""
    applied = 0
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    say("ready")
    while not told.done():
        applied += await drain_outbox()
        await asyncio.sleep(0.01)
    say(applied)


async def main(mode: str, *arguments: str) -> None:
    if mode == "commit":
        await commit_and_hang(list(arguments))
    elif mode == "drain":
        await drain_until_told_to_stop()
    elif mode == "run":
        say("ready")
        await run_outbox(0.05)
    elif mode == "take":
        outbox_table.PATIENCE = timedelta(seconds=float(arguments[0]))
        await drain_outbox()
    else:
        raise ValueError(mode)
    await close_cache()
    await close_database()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
