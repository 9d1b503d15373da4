"""Several processes that begin at the same moment."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

__all__ = ["start_cold"]

ROOT = Path(__file__).parents[2]
PATIENCE = 60


async def start_cold(adapter: str, url: str, *, processes: int, callers: int) -> int:
    """Let so many callers in each of so many processes want the same missing value at once: how many loads they made.

    :param adapter: name of an adapter class.
    """
    command = [sys.executable, "-m", "benchmarks.conformance.cold_start", adapter, url, str(callers)]
    workers = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE) for _ in range(processes)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            for each in workers:
                await _line(each)
            for each in workers:
                assert each.stdin is not None
                each.stdin.write(b"go\n")
            return sum([int(await _line(each)) for each in workers])
    finally:
        for each in workers:
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            await each.communicate()


async def _line(worker: Process) -> bytes:
    assert worker.stdout is not None
    line = await worker.stdout.readline()
    assert line, f"a worker ended with {await worker.wait()}"
    return line
