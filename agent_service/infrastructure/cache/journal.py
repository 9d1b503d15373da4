"""What Redis missed during an outage: the invalidations it is owed, and the increments.

A value set during an outage is not pushed afterwards, because another process may know better: the write is remembered
as an invalidation of what Redis still holds. Only the last operation on a key counts, and what a later pattern or
clearing covers is forgotten when that is written down. Invalidations are replayed before increments, so their order
among themselves does not matter. The journal is bounded: past its limit the namespace with the most entries collapses
into one: all of it is invalidated.

An increment that was sent and got no reply may have been made. It keeps its number (see ``redis_counters.py``), under
which it is sent again until its outcome is known; increments made later are added up beside it.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent_service.core.glob import compile_glob
from agent_service.core.logging import logger
from agent_service.infrastructure.cache.redis_counters import Changes

__all__ = ["Debt", "Increment", "Journal"]


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
    anew: set[str] = field(default_factory=set)
    """Those of ``added`` that were not added to a value that will not be pushed, whatever was written down before."""

    def __len__(self) -> int:
        return self.cleared + len(self.tags) + len(self.patterns) + len(self.stale) + sum(map(len, self.added.values()))


class Journal:
    """Debts by namespace. Synchronous, so that writing down and acting on memory cannot be separated by another task.

    :param limit: most operations remembered.
    """

    def __init__(self, limit: int = 10_000, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._debts: dict[str, Debt] = {}
        self._size = 0
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
            debt.stale[key] = None
            self._drop(debt, key)
            (debt.overwritten.add if overwritten else debt.overwritten.discard)(key)
        self._settle()

    def invalidate_tags(self, namespace: str, tags: Iterable[str]) -> None:
        """Remember that every entry with one of these tags went."""
        self._debt(namespace).tags.update(dict.fromkeys(tags))
        self._settle()

    def match(self, namespace: str, pattern: str) -> None:
        """Remember that every key that matches went."""
        debt = self._debt(namespace)
        matches = compile_glob(pattern)
        for key in [key for key in (*debt.stale, *debt.added) if matches(key.encode())]:
            debt.stale.pop(key, None)
            self._drop(debt, key)
            debt.overwritten.discard(key)
        debt.patterns[pattern] = None
        self._settle()

    def clear(self, namespace: str) -> None:
        """Remember that every entry went."""
        debt = self._debt(namespace)
        for key in list(debt.added):
            self._drop(debt, key)
        self._debts[namespace] = Debt(cleared=True)
        self._settle()

    def add(self, namespace: str, key: str, increment: Increment, *, anew: bool = False) -> None:
        """Remember an increment, unless it was added to a value that will not be pushed.

        :param anew: whether that value, if there was one, is gone: it expired, say, or lost a tag.
        """
        debt = self._debt(namespace)
        if anew:
            debt.overwritten.discard(key)
            debt.anew.add(key)
        elif key in debt.overwritten:
            self._end(increment)
            return
        owed = debt.added.setdefault(key, [])
        if owed and increment.number is None and owed[-1].number is None:
            owed[-1].amount += increment.amount
        else:
            owed.append(increment)
        self._settle()

    def take(self) -> dict[str, Debt]:
        """Take everything out, for a replay."""
        debts, self._debts, self._size = self._debts, {}, 0
        return debts

    def give_back(self, debts: dict[str, Debt]) -> None:
        """Put back what could not be replayed; what was written down meanwhile is later and wins."""
        newer, self._debts = self._debts, debts
        for namespace, debt in newer.items():
            if debt.cleared:
                self.clear(namespace)
            self.invalidate_tags(namespace, debt.tags)
            for pattern in debt.patterns:
                self.match(namespace, pattern)
            self.invalidate(namespace, debt.stale)
            for key, owed in debt.added.items():
                for increment in owed:
                    self.add(namespace, key, increment, anew=key in debt.anew)
            self._debt(namespace).overwritten |= debt.overwritten
        self._settle()

    def _debt(self, namespace: str) -> Debt:
        return self._debts.setdefault(namespace, Debt())

    def _drop(self, debt: Debt, key: str) -> None:
        debt.anew.discard(key)
        for increment in debt.added.pop(key, ()):
            self._end(increment)

    def _end(self, increment: Increment) -> None:
        if increment.number is not None:
            self.changes.end(increment.number)

    def _settle(self) -> None:
        self._size = sum(map(len, self._debts.values()))
        if self.brief:
            for name in list(self._debts):
                self._collapse(name)
        elif self._size > self._limit:
            name = max(self._debts, key=lambda each: len(self._debts[each]))
            logger.warning("the outage journal is full: all of cache namespace %r will be invalidated", name)
            self._collapse(name)

    def _collapse(self, name: str) -> None:
        for key in list(self._debts[name].added):
            self._drop(self._debts[name], key)
        self._debts[name] = Debt(cleared=True)
        self._size = sum(map(len, self._debts.values()))
