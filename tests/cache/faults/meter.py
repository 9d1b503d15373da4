"""How long calls take, and what must not happen in them."""

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Awaitable
from typing import TypeVar

from agent_service.core.errors import LoadTimeoutError

__all__ = ["Meter"]

T = TypeVar("T")

_TICK = 0.002
_MOST_TOLD = 5


class Meter:
    """Times calls by name. What goes wrong is kept to be told at the end, so that the load goes on."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.lateness = 0.0
        """How late the event loop was at most: what this machine, and not the cache, adds to a round trip."""
        self._late_in_all = 0.0
        self.faults: Counter[str] = Counter()
        self.told: list[str] = []

    async def time(self, name: str, call: Awaitable[T], *, may_time_out: bool = False) -> T | None:
        """Await a call; None when it raised, which no call may, other than for its own ``hard_timeout``."""
        started, late = time.monotonic(), self._late_in_all
        try:
            return await call
        except LoadTimeoutError:
            if not may_time_out:
                self.wrong(f"{name} raised", traceback.format_exc())
        except Exception:  # noqa: BLE001 - the very thing that must not happen
            self.wrong(f"{name} raised", traceback.format_exc())
        finally:
            took = time.monotonic() - started - (self._late_in_all - late)  # deadlines count turns of the loop
            self.calls[name] += 1
            self.longest[name] = max(self.longest.get(name, 0.0), took)
        return None

    def wrong(self, what: str, details: str) -> None:
        self.faults[what] += 1
        if len(self.told) < _MOST_TOLD:
            self.told.append(f"{what}: {details}")

    async def watch_the_loop(self) -> None:
        """Measure how late the loop is until cancelled."""
        while True:
            due = time.monotonic() + _TICK
            await asyncio.sleep(_TICK)
            late = time.monotonic() - due
            self.lateness = max(self.lateness, late)
            self._late_in_all += late
