"""Several processes that write one store."""

import asyncio
from contextlib import ExitStack

from tests.support.forked import Forked


async def updates_from_processes(kind: str, place: str, *, processes: int = 2, updates: int = 15) -> None:
    """Let each process set ``updates`` fields of the key ``shared``, one update a field."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                await Forked.start("tests.context.writer", kind, place, str(n * updates), str((n + 1) * updates))
            )
            for n in range(processes)
        ]
        assert await asyncio.gather(*(each.wait() for each in running)) == [0] * processes
