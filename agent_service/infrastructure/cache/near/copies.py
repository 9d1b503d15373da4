"""Copies of Redis entries in this process's memory: level 1 of a tiered cache, for one namespace.

A copy is kept only of what was read from Redis, and only if nothing was heard of the key, or of any token of the
namespace, since the read began: the reader takes a lease first (:mod:`agent_service.infrastructure.cache.leases`), and
whatever drops copies breaks the leases as well. A copy lives no longer than the entry in Redis, counted from the
beginning of the read.

While what is heard of Redis cannot be trusted, the clock of the table returns infinity. Every copy counts as expired
then, also for readers that look into the table directly.
"""

import math
from collections.abc import Callable, Collection

from agent_service.core.errors import CacheSerializationError
from agent_service.core.metrics import LevelCounter
from agent_service.infrastructure.cache.leases import Lease, LeaseBook
from agent_service.infrastructure.cache.table import Entry, MemoryStore
from agent_service.infrastructure.cache.values import CachedValue, ValueCodec

__all__ = ["NearCopies"]


class NearCopies:
    """Copies of one namespace's entries.

    :param clock: monotonic seconds; infinity while no copy may be served.
    :param longest: returns the seconds a copy may live at most.
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
        self._leases = LeaseBook()

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

    def now(self) -> float:
        """Return the time of the table; infinity while no copy may be served."""
        return self.table.monotonic()

    def lease(self, key: str) -> Lease:
        """Take the right to keep a copy of what is about to be read. It must be given to :meth:`end`."""
        return self._leases.open(key, more_tags=True)

    def end(self, lease: Lease) -> None:
        """End a lease, whether a copy was kept or not."""
        self._leases.close(lease)

    def keep(self, lease: Lease, began: float, found: CachedValue) -> None:
        """Keep a copy of what was read, if nothing was heard of it since the read began.

        :param began: :meth:`now` when the lease was taken.
        """
        now = self.table.monotonic()
        if lease.broken or math.inf in {now, began} or found.expires_in is None:
            return
        lives = min(found.left, began + min(found.expires_in, self._longest()) - now)
        if lives <= 0:
            return
        try:
            encoded = self._codec.encode(found.value)
        except CacheSerializationError:  # another program wrote it, nested too deep for instance
            return
        self.table.put(
            Entry(
                lease.key,
                encoded.kept,
                expires=now + lives,
                created=now - (found.age or 0.0),
                due=None if found.life is None else now,  # a reader may want it refreshed before it is stale
                copy=encoded.copy,
                tokens=self.table.tags.take(found.tags) if found.tags else (),
                raised=found.raised,
            )
        )

    def drop(self, keys: Collection[str]) -> None:
        """Forget the copies of these keys, and let no read under way bring them back."""
        for key in keys:
            self.table.remove(key)
        self._leases.break_keys(keys)

    def drop_tags(self, tags: Collection[str]) -> None:
        """Forget the copies that carry one of these tags."""
        self.table.tags.invalidate(tags)
        self._leases.break_tags(tags)

    def drop_matching(self, matches: Callable[[bytes], bool]) -> None:
        """Forget the copies of the keys that match."""
        kept = self.table.keys()
        for key in kept:
            if matches(key.encode()):
                self.table.remove(key)
        self._leases.break_matching(matches)

    def drop_all(self) -> None:
        """Forget every copy."""
        self.table.clear()
        self._leases.break_all()
