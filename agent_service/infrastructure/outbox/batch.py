"""Some rows of the outbox as one piece of work: what they ask for is joined, so that each name is done once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from agent_service.core.errors import UndecodableError
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.outbox.invalidation import MAX_NAMES, MAX_PATTERNS, Invalidation

__all__ = ["Batch"]


@dataclass(slots=True)
class _Asked:
    """What is asked of one namespace, each name once, in the order of the rows."""

    keys: dict[str, None] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)


class Batch:
    """The first of the given rows, as many as are done in a bounded time: one at least, unless there is none.

    Nothing is lost by joining them: all of it was committed before the first of it is done.
    """

    def __init__(self, rows: Iterable[tuple[UUID, str]]) -> None:
        self.readable: list[UUID] = []
        self.unreadable: list[UUID] = []
        self._asked: dict[str, _Asked] = {}
        for id_, body in rows:
            try:
                invalidation = Invalidation.from_json(body)
            except UndecodableError:
                self.unreadable.append(id_)
                continue
            if not self._take(invalidation):
                break
            self.readable.append(id_)

    def __len__(self) -> int:
        """How many of the rows are in it."""
        return len(self.readable) + len(self.unreadable)

    def _take(self, invalidation: Invalidation) -> bool:
        asked = self._asked.get(invalidation.namespace, _Asked())
        news = sum(pattern not in asked.patterns for pattern in invalidation.patterns)
        if news and news + sum(len(each.patterns) for each in self._asked.values()) > MAX_PATTERNS:
            return False
        self._asked[invalidation.namespace] = asked
        asked.keys |= dict.fromkeys(invalidation.keys)
        asked.tags |= dict.fromkeys(invalidation.tags)
        asked.patterns |= dict.fromkeys(invalidation.patterns)
        return True

    async def apply(self) -> bool:
        """Invalidate all of it. False: not all of it has reached the cache that other processes share."""
        for namespace, asked in self._asked.items():
            cache = await open_cache(namespace)
            for keys in _portions(tuple(asked.keys)):
                await cache.delete_many(keys)
            for tags in _portions(tuple(asked.tags)):
                await cache.invalidate_tags(tags)
            for pattern in asked.patterns:
                await cache.delete_pattern(pattern)
            if not cache.caught_up:
                return False
        return True


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + MAX_NAMES] for start in range(0, len(names), MAX_NAMES))
