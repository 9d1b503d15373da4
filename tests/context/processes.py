"""Several processes that write one store."""

import asyncio
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


async def updates_from_processes(kind: str, place: str, *, processes: int = 2, updates: int = 15) -> None:
    """Let each process set ``updates`` fields of the key ``shared``, one update a field."""
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.context.writer", kind, place, str(n * updates), str((n + 1) * updates)),
            cwd=CHECKOUT,
        )
        for n in range(processes)
    ]
    assert await asyncio.gather(*(each.wait() for each in running)) == [0] * processes
