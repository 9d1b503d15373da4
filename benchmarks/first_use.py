"""
The first ``get_session`` of a process, on a new SQLite file and an existing one: ``python -m benchmarks.first_use``.

Imports are not counted. The driver opens a file in WAL mode, and makes a table in a new one.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import print_ratios

ROUNDS = 9
OURS = """
import asyncio, time
from agent_service.infrastructure.database import get_session

async def use():
    async with get_session() as db:
        await db.connection()

started = time.perf_counter()
asyncio.run(use())
print(time.perf_counter() - started)
"""
DRIVER = """
import os, sqlite3, time

started = time.perf_counter()
raw = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite+aiosqlite:///"))
raw.execute("PRAGMA journal_mode = WAL")
raw.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body TEXT)")
raw.close()
print(time.perf_counter() - started)
"""
CANDIDATES = {"sqlite3": DRIVER, "agent_service, get_session": OURS}


def seconds_of(code: str, path: Path) -> float:
    """Return what a new process takes."""
    surroundings = {**os.environ, "DATABASE_URL": f"sqlite+aiosqlite:///{path}"}
    used = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True)
    return float(used.stdout)


def run() -> None:
    """Print the tables."""
    taken: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in CANDIDATES} for kind in ("new", "existing")}
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            for found in taken.values():
                for place, (name, code) in enumerate(CANDIDATES.items()):
                    found[name].append(seconds_of(code, Path(folder) / f"{turn}-{place}.db"))
    for kind, found in taken.items():
        medians = {name: statistics.median(each) for name, each in found.items()}
        print_ratios(f"First use of a SQLite file, {kind}", medians)


if __name__ == "__main__":
    run()
