"""
Saves steps of threads: ``python -m tests.database.checkpoint_writer URL NAME THREADS STEPS``.

Each step is the writes of a task and a checkpoint with a value of its own. What was committed is printed at once:
thread, checkpoint. The process ends when all is stored and its input has ended: one that is to be killed cannot end
before.
"""

import asyncio
import sys
import warnings
from typing import Any

from agent_service.infrastructure.database.checkpoints.changes import Encoded, NewCheckpoint, NewWrites, Write
from agent_service.infrastructure.database.checkpoints.store import CheckpointStore
from agent_service.infrastructure.database.engine import DatabaseManager


def checkpoint(thread: str, name: str, parent: str | None, values: dict[str, bytes], **options: Any) -> NewCheckpoint:
    """Return a checkpoint whose channels have its own name as their version."""
    versions = options.pop("versions", None) or dict.fromkeys(values, name)
    encoded = {channel: Encoded("raw", value) for channel, value in values.items()}
    return NewCheckpoint(
        thread, "", name, parent, Encoded("raw", name.encode()), Encoded("raw", b"{}"), versions, encoded, **options
    )


def writes(thread: str, name: str, task: str, *values: bytes, channel: str = "state") -> NewWrites:
    """Return what a task wrote after a checkpoint."""
    rows = [Write(place, channel, Encoded("raw", value)) for place, value in enumerate(values)]
    return NewWrites(thread, "", name, task, "", rows)


async def save(url: str, name: str, threads: int, steps: int) -> None:
    """Save the steps of all threads at the same time."""
    database = DatabaseManager(url)
    store = await CheckpointStore.open(database)
    await asyncio.gather(*(_save(store, name, f"thread {number}", steps) for number in range(threads)))
    await store.close()
    await database.close()


async def _save(store: CheckpointStore, name: str, thread: str, steps: int) -> None:
    parent = None
    for step in range(steps):
        current = f"{name} {step:04}"
        if parent is not None:
            await store.write("", writes(thread, parent, "task", current.encode()))
        values = {"state": current.encode() * 50, "other": current.encode()}
        await store.write("", checkpoint(thread, current, parent, values))
        print(thread, current, sep="|", flush=True)  # noqa: T201
        parent = current


if __name__ == "__main__":
    warnings.simplefilter("error")
    target, label, threads_, steps_ = sys.argv[1:]
    asyncio.run(save(target, label, int(threads_), int(steps_)))
    sys.stdin.read()
