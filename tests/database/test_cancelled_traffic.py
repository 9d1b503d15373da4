"""SQLite traffic of four processes in which one request in ten is cancelled: it never stops, and loses nothing."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.histories import Acknowledged, check, new_sessions
from tests.support.forked import Forked

PROCESSES, TASKS = 4, 6


@dataclass
class Heard:
    """What the processes printed."""

    acknowledged: Acknowledged = field(default_factory=dict)
    moments: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def longest_stop(self) -> float:
        """Seconds in which no process was acknowledged an append, while all of them ran."""
        if len(self.moments) < PROCESSES:
            return 0.0  # A busy machine gave one of them no time for an append.
        begun, ended = max(map(min, self.moments.values())), min(map(max, self.moments.values()))
        moments = sorted(each for name in self.moments for each in self.moments[name] if begun <= each <= ended)
        return max((later - earlier for earlier, later in pairwise(moments)), default=0)

    async def run(self, url: str, name: str, seconds: float, ids: list[UUID]) -> int:
        """Run a process to its end and give its exit status."""
        arguments = [url, name, str(TASKS), str(seconds), *map(str, ids)]
        with await Forked.start("tests.database.cancelling", *arguments) as process:
            while text := await process.line():
                if text.startswith("!"):
                    self.errors.append(text)
                    continue
                client_id, session_id, seq, moment = text.split()
                self.acknowledged[client_id] = (UUID(session_id), int(seq))
                self.moments.setdefault(name, []).append(float(moment))
            return await process.wait()


@pytest.mark.parametrize(
    ("seconds", "bound"),
    # A stop was SQLite's whole patience, 30 seconds; the bound of the short run leaves room for a busy machine.
    [(3, 20), pytest.param(60, 1, marks=[pytest.mark.faults, pytest.mark.timeout(600)])],
    ids=["short", "long"],
)
async def test_cancelled_requests_stop_nobody_and_lose_nothing(sqlite_url: str, seconds: float, bound: float) -> None:
    database, heard = DatabaseManager(sqlite_url), Heard()
    ids = await new_sessions(database, 4)

    statuses = await asyncio.gather(*(heard.run(sqlite_url, f"p{each}", seconds, ids) for each in range(PROCESSES)))
    await check(database, ids, heard.acknowledged)
    await database.close()

    assert statuses == [0] * PROCESSES
    assert heard.errors == []
    assert heard.longest_stop < bound
