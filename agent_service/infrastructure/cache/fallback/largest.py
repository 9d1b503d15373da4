"""Which of many names has the largest size, while sizes change."""

from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Largest"]

_SLACK: Final = 16
"""Entries that may be out of date however few names there are."""


class Largest:
    """A heap of sizes. A change adds an entry; entries that are out of date are skipped, and swept when they are many.

    Both operations take time that grows with the logarithm of the number of names.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def put(self, name: str, size: int) -> int:
        """Set the size of a name; return by how much it has grown."""
        former = self._sizes.get(name)
        if former == size:
            return 0
        self._sizes[name] = size
        heappush(self._heap, (-size, name))
        if len(self._heap) > 2 * len(self._sizes) + _SLACK:
            self._heap = [(-size, name) for name, size in self._sizes.items()]
            heapify(self._heap)
        return size - (former or 0)

    def find(self) -> str:
        """Return the name of the largest size; there is one."""
        while True:
            size, name = self._heap[0]
            if self._sizes[name] == -size:
                return name
            heappop(self._heap)

    def clear(self) -> None:
        """Forget every name."""
        self._sizes.clear()
        self._heap.clear()
