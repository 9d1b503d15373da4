"""Several processes that write one store."""

import asyncio
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


async def race(kind: str, place: str, *, processes: int, rounds: int) -> list[list[int]]:
    """Let processes save the user ``shared`` expecting each version in turn; give the versions that each one wrote."""
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.state.writer", "race", kind, place, str(number), str(rounds)),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(processes)
    ]
    said = [(await each.communicate())[0] for each in running]
    assert [each.returncode for each in running] == [0] * processes
    return [[int(version) for version in each.split()] for each in said]
