"""Copies of Redis entries in this process's memory: level 1 of a tiered cache, for one namespace.

A copy is taken only of what was read from Redis, and only if nothing was heard of the key, or of any token of the
namespace, since the read began: the reader leaves a mark first, and whoever drops copies breaks the marks as well. It
lives no longer than the entry in Redis, counted from the beginning of the read. The clock of the table stands at the
end of time while what is heard of Redis cannot be trusted, so that every copy counts as expired then, on the shortest
way as well.
"""

import math
from collections.abc import Callable, Iterable

from agent_service.core.errors import CacheSerializationError
from agent_service.core.metrics import LevelCounter
from agent_service.infrastructure.cache.table import Entry, MemoryStore
from agent_service.infrastructure.cache.values import CachedValue, ValueCodec

__all__ = ["Mark", "NearCopies"]


class Mark:
    """A read under way. Broken when what it reads may be out of date."""

    __slots__ = ("began", "broken", "key")

    def __init__(self, key: str, began: float) -> None:
        self.key = key
        self.began = began
        self.broken = False


class NearCopies:
    """Copies of one namespace's entries.

    :param clock: monotonic seconds; infinity while no copy may be served.
    :param longest: gives the seconds a copy may live at most.
    :param counts: where hits are counted.
    """

    def __init__(
        self,
        max_entries: int,
        codec: ValueCodec,
        *,
        clock: Callable[[], float],
        longest: Callable[[], float],
        counts: LevelCounter,
    ) -> None:
        self.table = MemoryStore(max_entries, monotonic=clock)
        self.counts = counts
        self._codec = codec
        self._longest = longest
        self._marks: dict[str, list[Mark]] = {}

    def __len__(self) -> int:
        """How many copies there are."""
        return len(self.table)

    def read(self, key: str) -> CachedValue | None:
        """Return a copy; counts a hit."""
        found = self.table.read(key)
        if found is None:
            return None
        value, entry = found
        now = self.table.monotonic()
        self.counts.hits += 1
        return CachedValue(
            value,
            "l1",
            now - entry.created,
            entry.fresh_until - now,
            entry.fresh_until - entry.created,
            raised=entry.raised,
        )

    def expect(self, key: str) -> Mark:
        """Say that a read of this key begins. It must :meth:`done`."""
        mark = Mark(key, self.table.monotonic())
        self._marks.setdefault(key, []).append(mark)
        return mark

    def done(self, mark: Mark) -> None:
        """Say that a read ended."""
        marks = self._marks.get(mark.key)
        if marks is not None and mark in marks:
            marks.remove(mark)
            if not marks:
                del self._marks[mark.key]

    def keep(self, mark: Mark, found: CachedValue) -> None:
        """Take a copy of what was read, if nothing was heard of it since the read began."""
        now = self.table.monotonic()
        if mark.broken or math.inf in {now, mark.began} or found.expires_in is None:
            return
        lives = min(found.left, mark.began + min(found.expires_in, self._longest()) - now)
        if lives <= 0:
            return
        try:
            encoded = self._codec.encode(found.value)
        except CacheSerializationError:  # nobody here wrote it: it nests too deep, say
            return
        self.table.put(
            Entry(
                mark.key,
                encoded.kept,
                expires=now + lives,
                created=now - (found.age or 0.0),
                due=None if found.life is None else now,  # a reader may want it refreshed before it is stale
                copy=encoded.copy,
                tokens=self.table.tags.take(found.tags) if found.tags else (),
                raised=found.raised,
            )
        )

    def drop(self, keys: Iterable[str]) -> None:
        """Forget the copies of these keys, and let no read under way bring them back."""
        for key in keys:
            self.table.remove(key)
            for mark in self._marks.pop(key, ()):
                mark.broken = True

    def drop_tags(self, tags: Iterable[str]) -> None:
        """Forget the copies that carry one of these tags."""
        self.table.tags.invalidate(tags)
        self._break_all()

    def drop_matching(self, matches: Callable[[bytes], bool]) -> None:
        """Forget the copies of the keys that match."""
        self.drop([key for key in (*self.table.keys(), *self._marks) if matches(key.encode())])

    def drop_all(self) -> None:
        """Forget every copy."""
        self.table.clear()
        self._break_all()

    def _break_all(self) -> None:
        for marks in self._marks.values():
            for mark in marks:
                mark.broken = True
        self._marks.clear()
