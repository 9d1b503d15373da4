"""What Redis missed during an outage: the invalidations it is owed, and the increments.

A value set during an outage is not pushed afterwards, because another process may know better: the write is remembered
as an invalidation of what Redis still holds. Only the last operation on a key counts. Patterns are kept apart and are
replayed first; what a later pattern covers is forgotten when the pattern is written down, so that order needs no more
than that. The journal is bounded: past its limit the namespace with the most keys collapses into one pattern, ``*``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from agent_service.core.glob import compile_glob
from agent_service.core.logging import logger

__all__ = ["Debt", "Journal"]


@dataclass(slots=True)
class Debt:
    """What one namespace is owed: patterns and keys to invalidate, then increments, with the TTL of a new counter."""

    patterns: dict[str, None] = field(default_factory=dict)
    stale: dict[str, None] = field(default_factory=dict)
    added: dict[str, tuple[int, float]] = field(default_factory=dict)
    overwritten: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.patterns) + len(self.stale) + len(self.added)


class Journal:
    """Debts by namespace. Synchronous, so that writing down and acting on memory cannot be separated by another task.

    :param limit: most operations remembered.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._debts: dict[str, Debt] = {}
        self._size = 0

    def __len__(self) -> int:
        """How many operations are remembered."""
        return self._size

    def invalidate(self, namespace: str, keys: Iterable[str], *, overwritten: bool = False) -> None:
        """Remember that these keys went, or were overwritten by a value that will not be pushed."""
        debt = self._debt(namespace)
        for key in keys:
            debt.stale[key] = None
            debt.added.pop(key, None)
            (debt.overwritten.add if overwritten else debt.overwritten.discard)(key)
        self._settle()

    def add(self, namespace: str, key: str, amount: int, seconds: float) -> None:
        """Remember an increment, unless it was added to a value that will not be pushed."""
        debt = self._debt(namespace)
        if key not in debt.overwritten:
            debt.added[key] = (debt.added.get(key, (0, 0.0))[0] + amount, seconds)
        self._settle()

    def match(self, namespace: str, pattern: str) -> None:
        """Remember that every key that matches went."""
        debt = self._debt(namespace)
        matches = compile_glob(pattern)
        for key in [key for key in (*debt.stale, *debt.added) if matches(key.encode())]:
            debt.stale.pop(key, None)
            debt.added.pop(key, None)
            debt.overwritten.discard(key)
        if pattern == "*":
            debt.patterns.clear()
        debt.patterns[pattern] = None
        self._settle()

    def take(self) -> dict[str, Debt]:
        """Take everything out, for a replay."""
        debts, self._debts, self._size = self._debts, {}, 0
        return debts

    def give_back(self, debts: dict[str, Debt]) -> None:
        """Put back what could not be replayed; what was written down meanwhile is later and wins."""
        newer, self._debts = self._debts, debts
        for namespace, debt in newer.items():
            for pattern in debt.patterns:
                self.match(namespace, pattern)
            self.invalidate(namespace, debt.stale)
            for key, (amount, seconds) in debt.added.items():
                self.add(namespace, key, amount, seconds)
            self._debt(namespace).overwritten |= debt.overwritten
        self._settle()

    def _debt(self, namespace: str) -> Debt:
        return self._debts.setdefault(namespace, Debt())

    def _settle(self) -> None:
        self._size = sum(map(len, self._debts.values()))
        if self._size > self._limit:
            name = max(self._debts, key=lambda each: len(self._debts[each]))
            logger.warning("the outage journal is full: all of cache namespace %r will be invalidated", name)
            self._debts[name] = Debt(patterns={"*": None})
            self._size = sum(map(len, self._debts.values()))
