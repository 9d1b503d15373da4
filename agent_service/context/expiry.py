"""When entries in memory expire: a heap, so that finding what is over costs only what is over."""

import heapq
import math
from typing import Any, Final

__all__ = ["ExpiryHeap"]

_SLACK: Final = 64
"""Deadlines that may be out of date however few entries there are."""


class ExpiryHeap:
    """The deadlines of the entries of a table, each of which ends with its deadline in monotonic seconds.

    An entry that is written again leaves its earlier deadline in the heap, where it says nothing; when most are like
    that, the heap is built again.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[float, str]] = []
        """Deadlines and keys; while it is empty nothing can expire."""

    def __len__(self) -> int:
        """How many there are, those that are out of date included."""
        return len(self.heap)

    def add(self, key: str, deadline: float, entries: dict[str, tuple[Any, float]]) -> None:
        """Add the deadline of an entry that was written."""
        heapq.heappush(self.heap, (deadline, key))
        if len(self.heap) > 2 * len(entries) + _SLACK:
            self.heap = [(each, key) for key, (_, each) in entries.items() if each != math.inf]
            heapq.heapify(self.heap)

    def expire(self, entries: dict[str, tuple[Any, float]], now: float) -> None:
        """Remove the entries whose time is over."""
        while self.heap and self.heap[0][0] <= now:
            _, key = heapq.heappop(self.heap)
            if key in entries and entries[key][1] <= now:
                del entries[key]
