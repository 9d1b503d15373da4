"""What Redis missed during an outage: the invalidations it is owed, and the increments.

A value set during an outage is not pushed afterwards, because another process may know better: the write is remembered
as an invalidation of what Redis still holds. Only the last operation on a key counts, and what a later pattern or
clearing covers is forgotten when that is written down. Invalidations are replayed before increments, so their order
among themselves does not matter. The journal is bounded, in operations and in bytes: past a limit the namespace that
has most collapses into one operation: all of it is invalidated.

An increment that was sent and got no reply may have been made. It keeps its number (see ``redis_counters.py``), under
which it is sent again until its outcome is known; increments made later are added up beside it.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final

from agent_service.core.globs import Globs, compile_globs
from agent_service.core.logging import logger
from agent_service.infrastructure.cache.redis.counters import Changes

__all__ = ["BYTES_EACH", "Debt", "Increment", "Journal"]

BYTES_EACH: Final = 1024
"""Bytes of memory for each operation of the limit; all operations together need no more."""
_PLACE: Final = 192
"""Bytes of a name's place in a table, beside the name itself."""
_INCREMENT: Final = 384
"""Bytes of an increment, beside the counter's name."""
_MERGED: Final = 1000
"""Most patterns compiled at once to be merged with what a replay gave back: some 50 ms of the event loop."""


@dataclass(slots=True)
class Increment:
    """What one counter is owed."""

    amount: int
    seconds: float
    """The TTL of a new counter."""
    number: int | None = None
    """Its number among the changes of this process, once it was sent."""
    sent_at: float = 0.0
    """When it was first sent, in monotonic seconds."""


@dataclass(slots=True)
class Debt:
    """What one namespace is owed: invalidations, then increments."""

    cleared: bool = False
    tags: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    stale: dict[str, None] = field(default_factory=dict)
    added: dict[str, list[Increment]] = field(default_factory=dict)
    overwritten: set[str] = field(default_factory=set)
    """Keys with a value that will not be pushed, and nothing that is added to it either."""
    anew: set[str] = field(default_factory=set)
    """Those of ``added`` that were not added to a value that will not be pushed, whatever was written down before."""
    size: int = 0
    """How many operations the journal has counted."""
    bytes: int = 0
    """How many bytes it has counted for them."""

    def __len__(self) -> int:
        """How many operations are left to replay."""
        return self.cleared + len(self.tags) + len(self.patterns) + len(self.stale) + sum(map(len, self.added.values()))

    def owe_again(self, unconfirmed: "Debt") -> None:
        """Take invalidations back that were paid and may be undone."""
        self.cleared |= unconfirmed.cleared
        self.tags |= unconfirmed.tags
        self.patterns |= unconfirmed.patterns
        self.stale |= unconfirmed.stale

    @property
    def is_all(self) -> bool:
        """Whether nothing is owed but the invalidation of everything."""
        return self.cleared and self.size == 1 and not self.overwritten


class Journal:
    """Debts by namespace. Synchronous, so that writing down and acting on memory cannot be separated by another task.

    What is taken out for a replay counts again when it is given back; both together are at most twice the limits.

    :param limit: most operations remembered; they need at most :data:`BYTES_EACH` times as many bytes.
    """

    def __init__(self, limit: int = 10_000, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._debts: dict[str, Debt] = {}
        self._size = 0
        self.bytes = 0
        """How much memory the operations need, at most."""
        self.collapsed = 0
        """How often a namespace had to collapse, for want of room."""
        self.monotonic = monotonic
        self.changes = Changes()
        self.brief = False
        """Whether a namespace that is owed anything is owed the invalidation of everything, and nothing else."""

    def __len__(self) -> int:
        """How many operations are remembered."""
        return self._size

    def invalidate(self, namespace: str, keys: Iterable[str], *, overwritten: bool = False) -> None:
        """Remember that these keys went, or were overwritten by a value that will not be pushed."""
        debt = self._debt(namespace)
        for key in keys:
            self._owe(debt, debt.stale, key)
            self._drop(debt, key)
            self._note(debt, key, overwritten=overwritten)
        self._settle()

    def invalidate_tags(self, namespace: str, tags: Iterable[str]) -> None:
        """Remember that every entry with one of these tags went."""
        debt = self._debt(namespace)
        for tag in tags:
            self._owe(debt, debt.tags, tag)
        self._settle()

    def match(self, namespace: str, globs: Globs) -> None:
        """Remember that every key that matches went."""
        self._match(self._debt(namespace), globs)
        self._settle()

    def clear(self, namespace: str) -> None:
        """Remember that every entry went."""
        self._collapse(namespace)
        self._settle()

    def add(self, namespace: str, key: str, increment: Increment, *, anew: bool = False) -> None:
        """Remember an increment, unless it was added to a value that will not be pushed.

        :param anew: whether that value, if there was one, is gone: it expired, say, or lost a tag.
        """
        debt = self._debt(namespace)
        if anew:
            self._begin_anew(debt, key)
        elif key in debt.overwritten:
            self._end(increment)
            return
        self._add(debt, key, increment)
        self._settle()

    def take(self) -> dict[str, Debt]:
        """Take everything out, for a replay."""
        debts, self._debts, self._size, self.bytes = self._debts, {}, 0, 0
        return debts

    def give_back(self, debts: dict[str, Debt]) -> None:
        """Put back what could not be replayed; what was written down meanwhile is later and wins."""
        newer, self._debts = self._debts, debts
        self._size = self.bytes = 0
        for debt in debts.values():
            debt.size = debt.bytes = 0
            self._count(debt, len(debt), _bytes_of(debt))
        for namespace, debt in newer.items():
            self._merge(namespace, debt)
        self._settle()

    def _merge(self, namespace: str, later: Debt) -> None:
        globs = compile_globs(later.patterns) if 0 < len(later.patterns) <= _MERGED else None
        if later.cleared or (later.patterns and globs is None):
            self._collapse(namespace)
        debt = self._debt(namespace)
        for tag in later.tags:
            self._owe(debt, debt.tags, tag)
        if globs is not None:
            self._match(debt, globs)
        for key in later.stale:
            self._owe(debt, debt.stale, key)
            self._drop(debt, key)
            self._note(debt, key, overwritten=False)
        for key, owed in later.added.items():
            if key in later.anew:
                self._begin_anew(debt, key)
            for increment in owed:
                if key in debt.overwritten:
                    self._end(increment)
                else:
                    self._add(debt, key, increment)
        for key in later.overwritten:
            self._note(debt, key, overwritten=True)

    # -- one debt

    def _debt(self, namespace: str) -> Debt:
        return self._debts.setdefault(namespace, Debt())

    def _count(self, debt: Debt, operations: int, size: int) -> None:
        debt.size += operations
        debt.bytes += size
        self._size += operations
        self.bytes += size

    def _owe(self, debt: Debt, names: dict[str, None], name: str) -> None:
        if name not in names:
            names[name] = None
            self._count(debt, 1, _size_of(name))

    def _note(self, debt: Debt, key: str, *, overwritten: bool) -> None:
        if overwritten != (key in debt.overwritten):
            (debt.overwritten.add if overwritten else debt.overwritten.remove)(key)
            self._count(debt, 0, _size_of(key) if overwritten else -_size_of(key))

    def _begin_anew(self, debt: Debt, key: str) -> None:
        self._note(debt, key, overwritten=False)
        debt.anew.add(key)

    def _match(self, debt: Debt, globs: Globs) -> None:
        for key in {key for key in (*debt.stale, *debt.added, *debt.overwritten) if globs.matches(key.encode())}:
            if key in debt.stale:
                del debt.stale[key]
                self._count(debt, -1, -_size_of(key))
            self._drop(debt, key)
            self._note(debt, key, overwritten=False)
        for pattern in globs.patterns:
            self._owe(debt, debt.patterns, pattern)

    def _add(self, debt: Debt, key: str, increment: Increment) -> None:
        owed = debt.added.get(key)
        if owed is None:
            owed = debt.added[key] = []
            self._count(debt, 0, _size_of(key))
        if owed and increment.number is None and owed[-1].number is None:
            owed[-1].amount += increment.amount
        else:
            owed.append(increment)
            self._count(debt, 1, _INCREMENT)

    def _drop(self, debt: Debt, key: str) -> None:
        debt.anew.discard(key)
        owed = debt.added.pop(key, None)
        if owed is not None:
            self._count(debt, -len(owed), -len(owed) * _INCREMENT - _size_of(key))
            for increment in owed:
                self._end(increment)

    def _end(self, increment: Increment) -> None:
        if increment.number is not None:
            self.changes.end(increment.number)

    # -- room

    def _settle(self) -> None:
        if self.brief:
            for name, debt in list(self._debts.items()):
                if debt.size and not debt.is_all:
                    self._collapse(name)
        while (too_many := self._size > self._limit) or self.bytes > self._limit * BYTES_EACH:
            name, debt = max(self._debts.items(), key=lambda each: each[1].size if too_many else each[1].bytes)
            if debt.is_all:
                return
            self.collapsed += 1
            logger.warning("the outage journal is full: all of cache namespace %r will be invalidated", name)
            self._collapse(name)

    def _collapse(self, name: str) -> None:
        debt = self._debt(name)
        for key in list(debt.added):
            self._drop(debt, key)
        self._count(debt, -debt.size, -debt.bytes)
        self._debts[name] = Debt(cleared=True)
        self._count(self._debts[name], 1, 0)


def _size_of(name: str) -> int:
    return getsizeof(name) + _PLACE


def _bytes_of(debt: Debt) -> int:
    names = (*debt.tags, *debt.patterns, *debt.stale, *debt.added, *debt.overwritten)
    return sum(map(_size_of, names)) + _INCREMENT * sum(map(len, debt.added.values()))
