"""The journal of an outage: what Redis missed, by namespace, within a bounded amount of memory.

An operation that Redis did not get is recorded here before memory is changed. After the outage everything is replayed;
see :mod:`.pending` for what is remembered of an operation, and :mod:`.replay` for how it is sent.

The journal is bounded, in operations and in bytes. Past either limit the namespace that has most is cleared: its
operations are replaced by one, the invalidation of everything in it. That invalidates too much and forgets increments,
and is safe.

Recording costs the same however much is remembered: namespaces count their operations themselves (:mod:`.pending`), the
largest one is found by a heap (:mod:`.largest`), and only the namespace that was written to is looked at. Journal and
memory change together without an ``await`` in between, so no other task can separate them.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from agent_service.core.globs import Globs, compile_globs
from agent_service.infrastructure.cache.fallback.largest import Largest
from agent_service.infrastructure.cache.fallback.pending import Increment, PendingOperations
from agent_service.infrastructure.cache.redis.counters import Changes

__all__ = ["BYTES_EACH", "Journal"]

logger = logging.getLogger("agent_service.cache")

BYTES_EACH: Final = 1024
"""Bytes of memory for each operation of the limit; all operations together need no more."""
_MERGED: Final = 1000
"""Most patterns compiled at once to be merged with what a replay gave back: some 50 ms of the event loop."""


class Journal:
    """Pending operations by namespace.

    What is taken out for a replay counts again when it is given back; both together are at most twice the limits.

    :param limit: most operations remembered; they need at most :data:`BYTES_EACH` times as many bytes.
    """

    def __init__(self, limit: int = 10_000, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._pending: dict[str, PendingOperations] = {}
        self._by_size, self._by_bytes = Largest(), Largest()
        self._size = 0
        self._clears_only = False
        self.bytes = 0
        """How much memory the operations need, at most."""
        self.collapsed = 0
        """How often a namespace was cleared for want of room."""
        self.monotonic = monotonic
        self.changes = Changes()

    def __len__(self) -> int:
        """How many operations are remembered."""
        return self._size

    @property
    def clears_only(self) -> bool:
        """Whether a namespace that misses anything is cleared, and nothing else is remembered of it."""
        return self._clears_only

    @clears_only.setter
    def clears_only(self, value: bool) -> None:
        changed, self._clears_only = value != self._clears_only, value
        if changed and value:
            for namespace, pending in self._pending.items():
                self._settle(namespace, pending)

    def invalidate(self, namespace: str, keys: Iterable[str], *, overwritten: bool = False) -> None:
        """Record that these keys were removed, or overwritten by a value that will not be pushed."""
        pending = self._of(namespace)
        for key in keys:
            pending.invalidate_key(key, overwritten=overwritten)
        self._settle(namespace, pending)

    def invalidate_tags(self, namespace: str, tags: Iterable[str]) -> None:
        """Record that every entry with one of these tags was removed."""
        pending = self._of(namespace)
        for tag in tags:
            pending.invalidate_tag(tag)
        self._settle(namespace, pending)

    def invalidate_matching(self, namespace: str, globs: Globs) -> None:
        """Record that every key that matches was removed."""
        pending = self._of(namespace)
        pending.invalidate_matching(globs)
        self._settle(namespace, pending)

    def clear(self, namespace: str) -> None:
        """Record that every entry was removed."""
        pending = self._of(namespace)
        pending.clear()
        self._settle(namespace, pending)

    def add(self, namespace: str, key: str, increment: Increment, *, restarted: bool = False) -> None:
        """Record an increment, unless it was added to a value that will not be pushed.

        :param restarted: whether that value, if there was one, is gone: it expired, say, or lost a tag.
        """
        pending = self._of(namespace)
        pending.add(key, increment, restarted=restarted)
        self._settle(namespace, pending)

    def take(self) -> dict[str, PendingOperations]:
        """Take everything out, for a replay.

        Which keys have a value that will not be pushed is remembered: what is added to it during the replay is not
        pushed either.
        """
        taken = self._pending
        self._start_over({name: each.successor() for name, each in taken.items() if each.overwritten})
        return taken

    def memory_is_empty(self) -> None:
        """Forget which keys have a value in memory that will not be pushed."""
        for namespace, pending in self._pending.items():
            pending.forget_overwritten()
            self._count(namespace, pending)

    def give_back(self, unreplayed: dict[str, PendingOperations]) -> None:
        """Put back what could not be replayed; what was recorded meanwhile is later and wins."""
        newer = self._pending
        self._start_over(unreplayed)
        for namespace, later in newer.items():
            pending = self._of(namespace)
            globs = compile_globs(later.patterns) if 0 < len(later.patterns) <= _MERGED else None
            if later.cleared or (later.patterns and globs is None):
                pending.clear()
            pending.append(later, globs)
            self._settle(namespace, pending)

    def _start_over(self, pending: dict[str, PendingOperations]) -> None:
        self._pending = pending
        self._size = self.bytes = 0
        self._by_size.clear()
        self._by_bytes.clear()
        for namespace, each in pending.items():
            self._settle(namespace, each)

    def _of(self, namespace: str) -> PendingOperations:
        found = self._pending.get(namespace)
        if found is None:
            found = self._pending[namespace] = PendingOperations(self.changes)
        return found

    # -- room

    def _settle(self, namespace: str, pending: PendingOperations) -> None:
        """Count a namespace that has changed, and make room."""
        if self._clears_only and pending.size and not pending.is_clear:
            pending.clear()
        self._count(namespace, pending)
        while (too_many := self._size > self._limit) or self.bytes > self._limit * BYTES_EACH:
            name = (self._by_size if too_many else self._by_bytes).find()
            largest = self._pending[name]
            if largest.is_clear:
                return
            self.collapsed += 1
            logger.warning("the outage journal is full: all of cache namespace %r will be invalidated", name)
            largest.clear()
            self._count(name, largest)

    def _count(self, namespace: str, pending: PendingOperations) -> None:
        self._size += self._by_size.put(namespace, pending.size)
        self.bytes += self._by_bytes.put(namespace, pending.bytes)
