"""The source of truth that the caches of the fault runs stand before, and what they may still show of its past."""

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from tests.cache.faults.process import Process

__all__ = ["Truth"]


class Truth:
    """Versions of items. Who changes one bumps its version, then invalidates the caches, then says that he has.

    From then on a process must not show an older version of what it invalidated itself, whatever the state of Redis.
    What another one invalidated it must not show either, a bound for copies in memory apart, while Redis serves both:
    a process that is cut off from Redis hears nothing, and what it did itself arrives when it has recovered.
    """

    def __init__(self) -> None:
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._invalidated: defaultdict[tuple[Process, str], tuple[list[float], list[int]]] = defaultdict(
            lambda: ([0.0], [0])
        )

    def version(self, item: str) -> int:
        return self._versions[item]

    def bump(self, items: Iterable[str]) -> dict[str, int]:
        """Change items; give their new versions."""
        bumped = {}
        for item in items:
            self._versions[item] += 1
            bumped[item] = self._versions[item]
        return bumped

    def invalidated(self, process: Process, versions: dict[str, int]) -> None:
        """Say that a process was told that everything older than these versions is invalid, and has returned."""
        now = time.monotonic()
        for item, version in versions.items():
            times, known = self._invalidated[process, item]
            times.append(now)
            known.append(max(version, known[-1]))

    def oldest_allowed(self, reader: Process, item: str) -> int:
        """The oldest version that this process may show to a call that begins now."""
        return self._invalidated[reader, item][1][-1]

    def oldest_allowed_by_others(self, others: Iterable[Process], item: str, *, bound: float) -> int:
        """The same for what others invalidated, if Redis serves the reader throughout the call.

        :param bound: seconds for which the reader may not have heard of it.
        """
        before = time.monotonic() - bound
        oldest = 0
        for other in others:
            if other.breaker.closed and other.breaker.closed_at <= before:
                times, known = self._invalidated[other, item]
                oldest = max(oldest, known[bisect_right(times, before) - 1])
        return oldest
