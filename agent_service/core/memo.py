"""What was worked out once and is looked up from then on, bounded in entries and in bytes.

What is remembered is made of what callers or servers sent, so a bound in entries alone is none: 10,000 entries of
100 KB are a gigabyte.
"""

from collections.abc import Hashable, Iterable
from sys import getsizeof
from typing import Generic, TypeVar

__all__ = ["Memo", "size_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_PARTS = 1024


def size_of(parts: Iterable[object]) -> int:
    """Return the bytes that flat objects (texts, bytes, numbers) take."""
    return sum(map(getsizeof, parts))


class Memo(Generic[K, V]):
    """Keeps values by key. At a bound all are forgotten, which costs whoever asks next the work of before.

    :param most: entries.
    :param most_bytes: of keys and values together, as :meth:`keep` is told. What takes more than the 1024th part of
        them is not kept: it would displace too many, and making it anew costs little beside its size.
    """

    def __init__(self, most: int, most_bytes: int = 4 << 20) -> None:
        self.known: dict[K, V] = {}
        """What readers look into; the same dict for as long as the memo lives."""
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0

    def keeps(self, size: int) -> bool:
        """Whether something of this size is kept at all."""
        return size <= self._most_bytes // _PARTS

    def keep(self, key: K, value: V, size: int) -> None:
        """Remember a value, in place of an earlier one.

        :param size: bytes of the key and the value; the same each time for one key.
        """
        if not self.keeps(size):
            return
        if key not in self.known:
            if len(self.known) >= self._most or self._bytes + size > self._most_bytes:
                self.known.clear()
                self._bytes = 0
            self._bytes += size
        self.known[key] = value
