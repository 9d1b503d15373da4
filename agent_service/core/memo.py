"""Results that are computed once and looked up afterwards, bounded in entries and in bytes.

The keys and values come from callers or servers, so a bound in entries alone is not enough: 10,000 entries of 100 KB
are a gigabyte.
"""

from collections.abc import Hashable, Iterable
from sys import getsizeof
from typing import Generic, TypeVar

__all__ = ["Memo", "size_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_PARTS = 1024


def size_of(parts: Iterable[object]) -> int:
    """Return the bytes that flat objects (texts, bytes, numbers) occupy."""
    return sum(map(getsizeof, parts))


class Memo(Generic[K, V]):
    """Keeps values by key. At a bound all are dropped, and are computed again when they are next needed.

    :param most: entries.
    :param most_bytes: of keys and values together, as given to :meth:`keep`. An entry of more than 1/1024 of them is
        not kept: it would displace too many others, and computing it again costs little compared with its size.
    """

    def __init__(self, most: int, most_bytes: int = 4 << 20) -> None:
        self.known: dict[K, V] = {}
        """For reading; the same dict as long as the memo lives."""
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0

    def keeps(self, size: int) -> bool:
        """Return whether an entry of this size is kept at all."""
        return size <= self._most_bytes // _PARTS

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep a value, in place of an earlier one.

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
