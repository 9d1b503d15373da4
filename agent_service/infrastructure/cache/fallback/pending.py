"""What Redis missed in one namespace: the invalidations and increments to replay, and how much room they take.

A value set during an outage is not pushed afterwards, because another process may know better: the write is recorded as
an invalidation of what Redis still holds. Only the last operation on a key counts, and what a later pattern covers is
dropped when that pattern is recorded. Invalidations are replayed before increments, so their order among themselves
does not matter.

An increment that was sent and got no reply may have been made. It keeps its number (see ``redis/counters.py``), under
which it is sent again until its outcome is known; later increments are added up beside it.

The counts are kept as operations come and go, so that no write has to look at the operations that are there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from sys import getsizeof
from typing import Final

from agent_service.core.globs import Globs
from agent_service.infrastructure.cache.redis.counters import Changes

__all__ = ["Increment", "PendingOperations"]

_PLACE: Final = 192
"""Bytes of a name's place in a table, beside the name itself."""
_INCREMENT: Final = 384
"""Bytes of an increment, beside the counter's name."""


@dataclass(slots=True)
class Increment:
    """An increment that Redis missed."""

    amount: int
    seconds: float
    """The TTL of a new counter."""
    number: int | None = None
    """Its number among the changes of this process, once it was sent."""
    sent_at: float = 0.0
    """When it was first sent, in monotonic seconds."""


class PendingOperations:
    """The operations of one namespace.

    Read the attributes freely; change them by the methods alone, which count.

    :param changes: where the number of an increment ends that will not be sent again.
    """

    __slots__ = (
        "_changes",
        "bytes",
        "cleared",
        "increments",
        "keys",
        "overwritten",
        "patterns",
        "size",
        "tags",
    )

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.cleared = False
        """Whether everything is to be invalidated."""
        self.tags: dict[str, None] = {}
        self.patterns: dict[str, None] = {}
        self.keys: dict[str, None] = {}
        """To be invalidated."""
        self.increments: dict[str, list[Increment]] = {}
        self.overwritten: set[str] = set()
        """Keys with a value that will not be pushed; nothing that is added to it is either."""
        self.size = 0
        """How many operations there are to replay."""
        self.bytes = 0
        """How many bytes they take, at most."""

    def __len__(self) -> int:
        return self.size

    @property
    def is_clear(self) -> bool:
        """Whether nothing is left but the invalidation of everything."""
        return self.cleared and self.size == 1 and not self.overwritten

    # -- recording

    def clear(self) -> None:
        """Replace everything by one invalidation of everything."""
        for key in list(self.increments):
            self._drop_increments(key)
        for each in (self.tags, self.patterns, self.keys, self.overwritten):
            each.clear()
        self.cleared, self.size, self.bytes = True, 1, 0

    def invalidate_key(self, key: str, *, overwritten: bool) -> None:
        """Record that a key was removed, or overwritten by a value that will not be pushed."""
        self._record(self.keys, key)
        self._drop_increments(key)
        self._overwrite(key, overwritten)

    def invalidate_tag(self, tag: str) -> None:
        """Record that every entry with a tag was removed."""
        self._record(self.tags, tag)

    def invalidate_matching(self, globs: Globs) -> None:
        """Record that every key that matches was removed. Takes a look at every key, as the operation itself does."""
        for key in {key for key in (*self.keys, *self.increments, *self.overwritten) if globs.matches(key.encode())}:
            if key in self.keys:
                self._forget(self.keys, key)
            self._drop_increments(key)
            self._overwrite(key, False)
        for pattern in globs.patterns:
            self._record(self.patterns, pattern)

    def add(self, key: str, increment: Increment, *, restarted: bool = False) -> None:
        """Record an increment, unless it was added to a value that will not be pushed.

        :param restarted: whether that value, if there was one, is gone: it expired, say, or lost a tag.
        """
        if restarted:
            self._overwrite(key, False)
        elif key in self.overwritten:
            self._end(increment)
            return
        present = self.increments.get(key)
        if present is None:
            present = self.increments[key] = []
            self.bytes += _size_of(key)
        if present and increment.number is None and present[-1].number is None:
            present[-1].amount += increment.amount
        else:
            present.append(increment)
            self.size += 1
            self.bytes += _INCREMENT

    def append(self, later: "PendingOperations", globs: Globs | None) -> None:
        """Record what was recorded later, by the successor of these operations.

        :param globs: its patterns, compiled; None: it has none.
        """
        for tag in later.tags:
            self.invalidate_tag(tag)
        if globs is not None:
            self.invalidate_matching(globs)
        for key in later.keys:
            self.invalidate_key(key, overwritten=False)
        for key, increments in later.increments.items():
            for increment in increments:
                self.add(key, increment)
        for key in later.overwritten:
            self._overwrite(key, True)

    def successor(self) -> "PendingOperations":
        """Return what records from now on, while these operations are replayed.

        The keys with a value that will not be pushed move there: memory still holds these values.
        """
        later = PendingOperations(self._changes)
        later.overwritten, self.overwritten = self.overwritten, later.overwritten
        moved = sum(map(_size_of, later.overwritten))
        later.bytes += moved
        self.bytes -= moved
        return later

    def forget_overwritten(self) -> None:
        """Record that memory is empty."""
        for key in list(self.overwritten):
            self._overwrite(key, False)

    # -- replaying

    def done_clear(self) -> None:
        """Record that everything was invalidated."""
        if self.cleared:
            self.cleared = False
            self.size -= 1

    def done_tags(self, tags: Iterable[str]) -> None:
        """Record that tags were invalidated."""
        for tag in tags:
            self._forget(self.tags, tag)

    def done_patterns(self) -> None:
        """Record that all patterns were invalidated."""
        for pattern in list(self.patterns):
            self._forget(self.patterns, pattern)

    def done_keys(self, keys: Iterable[str]) -> None:
        """Record that keys were invalidated."""
        for key in keys:
            self._forget(self.keys, key)

    def done_increments(self, key: str, count: int) -> None:
        """Record that the first ``count`` increments of a counter were made."""
        increments = self.increments[key]
        del increments[:count]
        self.size -= count
        self.bytes -= count * _INCREMENT
        if not increments:
            del self.increments[key]
            self.bytes -= _size_of(key)

    def restore(self, unconfirmed: "PendingOperations") -> None:
        """Record invalidations again that were made and may be undone."""
        self.unconfirmed(
            cleared=unconfirmed.cleared, tags=unconfirmed.tags, patterns=unconfirmed.patterns, keys=unconfirmed.keys
        )

    def unconfirmed(
        self, *, cleared: bool = False, tags: Iterable[str] = (), patterns: Iterable[str] = (), keys: Iterable[str] = ()
    ) -> None:
        """Record invalidations that were made and that too few replicas have confirmed."""
        if cleared:
            self._clear()
        for names, given in ((self.tags, tags), (self.patterns, patterns), (self.keys, keys)):
            for name in given:
                self._record(names, name)

    # -- counting

    def _clear(self) -> None:
        if not self.cleared:
            self.cleared = True
            self.size += 1

    def _record(self, names: dict[str, None], name: str) -> None:
        if name not in names:
            names[name] = None
            self.size += 1
            self.bytes += _size_of(name)

    def _forget(self, names: dict[str, None], name: str) -> None:
        del names[name]
        self.size -= 1
        self.bytes -= _size_of(name)

    def _overwrite(self, key: str, overwritten: bool) -> None:
        if overwritten != (key in self.overwritten):
            (self.overwritten.add if overwritten else self.overwritten.remove)(key)
            self.bytes += _size_of(key) if overwritten else -_size_of(key)

    def _drop_increments(self, key: str) -> None:
        increments = self.increments.get(key)
        if increments:
            for increment in increments:
                self._end(increment)
            self.done_increments(key, len(increments))

    def _end(self, increment: Increment) -> None:
        if increment.number is not None:
            self._changes.end(increment.number)


def _size_of(name: str) -> int:
    return getsizeof(name) + _PLACE
