"""Several rows of the outbox as one piece of work: their names are merged, so that each is invalidated once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from agent_service.core.errors import UndecodableError
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.outbox.invalidation import MAX_NAMES, Invalidation

__all__ = ["MAX_PASSES", "OutboxBatch"]

MAX_PASSES: Final = 10
"""The most namespaces with patterns in a batch: each takes a pass over all keys of the cache."""


@dataclass(slots=True)
class _Asked:
    """The names to invalidate in one namespace, each once, in the order of the rows."""

    keys: dict[str, None] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    rows: list[UUID] = field(default_factory=list)
    """Rows without patterns."""
    rows_with_patterns: list[UUID] = field(default_factory=list)


class OutboxBatch:
    """The first of the given rows, as many as can be applied in a bounded time, and at least one if there is one.

    Merging loses nothing: all of the rows were committed before the first is applied.
    """

    def __init__(self, rows: Iterable[tuple[UUID, str]]) -> None:
        self.readable: list[UUID] = []
        self.unreadable: list[UUID] = []
        self.done: list[UUID] = []
        """Rows of which everything has reached the cache that the processes share."""
        self._asked: dict[str, _Asked] = {}
        for id_, body in rows:
            try:
                invalidation = Invalidation.from_json(body)
            except UndecodableError:
                self.unreadable.append(id_)
                continue
            if not self._take(id_, invalidation):
                break
            self.readable.append(id_)

    def __len__(self) -> int:
        """Return how many of the rows are in it."""
        return len(self.readable) + len(self.unreadable)

    def _take(self, id_: UUID, invalidation: Invalidation) -> bool:
        asked = self._asked.get(invalidation.namespace, _Asked())
        if invalidation.patterns and not asked.patterns and self._passes() == MAX_PASSES:
            return False
        self._asked[invalidation.namespace] = asked
        (asked.rows_with_patterns if invalidation.patterns else asked.rows).append(id_)
        asked.keys |= dict.fromkeys(invalidation.keys)
        asked.tags |= dict.fromkeys(invalidation.tags)
        asked.patterns |= dict.fromkeys(invalidation.patterns)
        return True

    def _passes(self) -> int:
        return sum(bool(each.patterns) for each in self._asked.values())

    async def apply(self) -> bool:
        """Invalidate everything: keys and tags first, because patterns take longer.

        Return False if not all of it has reached the cache that the processes share.
        """
        for namespace, asked in self._asked.items():
            cache = await open_cache(namespace)
            for keys in _portions(tuple(asked.keys)):
                await cache.delete_many(keys)
            for tags in _portions(tuple(asked.tags)):
                await cache.invalidate_tags(tags)
            if not cache.caught_up:
                return False
            self.done += asked.rows
        for namespace, asked in self._asked.items():
            if asked.patterns:
                cache = await open_cache(namespace)
                await cache.delete_patterns(asked.patterns)
                if not cache.caught_up:
                    return False
                self.done += asked.rows_with_patterns
        return True


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + MAX_NAMES] for start in range(0, len(names), MAX_NAMES))
