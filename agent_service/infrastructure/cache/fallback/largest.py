"""Which of many names has the largest size, while sizes change."""

from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Largest"]

_SLACK: Final = 16
"""Entries that may be out of date however few names there are."""


class Largest:
    """Sizes by name, and a heap of them from the first time that the largest is asked for.

    From then on a change adds an entry to the heap; entries that are out of date are skipped, and swept when they are
    many. So both operations take time that grows with the logarithm of the number of names.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._heap: list[tuple[int, str]] | None = None

    def put(self, name: str, size: int) -> int:
        """Set the size of a name; return by how much it has grown."""
        former = self._sizes.get(name)
        if former == size:
            return 0
        self._sizes[name] = size
        if self._heap is not None:
            heappush(self._heap, (-size, name))
            if len(self._heap) > 2 * len(self._sizes) + _SLACK:
                self._heap = self._built()
        return size - (former or 0)

    def find(self) -> str:
        """Return the name of the largest size; there is one."""
        heap = self._heap = self._built() if self._heap is None else self._heap
        while True:
            size, name = heap[0]
            if self._sizes[name] == -size:
                return name
            heappop(heap)

    def clear(self) -> None:
        """Forget every name."""
        self._sizes.clear()
        self._heap = None

    def _built(self) -> list[tuple[int, str]]:
        heap = [(-size, name) for name, size in self._sizes.items()]
        heapify(heap)
        return heap
