"""The cache in this process's memory: exact LRU, a TTL for each entry, lost on restart."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.codec import Serializer
from agent_service.core.errors import CacheValueError
from agent_service.core.glob import compile_glob
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.ttl import NEVER, TTL, Never, resolve_ttl
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.grants import LocalGrant
from agent_service.infrastructure.cache.interface import MISS, Hit, Lookup
from agent_service.infrastructure.cache.leases import Grant, LeaseBook, Standing
from agent_service.infrastructure.cache.store import Entry, MemoryStore
from agent_service.infrastructure.cache.values import Encoded, ValueCodec, checked_sum

__all__ = ["InMemoryCache"]

T = TypeVar("T")


class MemoryBackend(Backend):
    """Entries in a :class:`MemoryStore`."""

    def __init__(self, table: MemoryStore, codec: ValueCodec, counters: NamespaceCounters) -> None:
        self.table = table
        self.codec = codec
        self.counters = counters

    async def lookup(self, key: str) -> Lookup[Any]:
        return self._read(key)

    async def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        return {key: found.value for key in keys if (found := self._read(key)) is not MISS}

    def _read(self, key: str) -> Lookup[Any]:
        found = self.table.read(key)
        if found is None:
            self.counters.misses += 1
            return MISS
        self.counters.hits += 1
        return Hit(found[0])

    async def store(self, entries: Mapping[str, Encoded], seconds: float) -> bool:
        expires = self.table.monotonic() + seconds
        refused = [key for key, each in entries.items() if not self.table.put(_entry(key, each, expires))]
        return not refused

    async def grant(self, key: str, standing: Standing = "share") -> Grant:  # noqa: ARG002 - nobody else loads
        return LocalGrant(self, key)

    async def remove(self, keys: Sequence[str]) -> int:
        return sum([self.table.remove(key) for key in keys])

    async def exists(self, key: str) -> bool:
        return self.table.live(key) is not None

    async def add(self, key: str, amount: int, seconds: float) -> int:
        def change(entry: Entry | None) -> Entry:
            if entry is None:
                return _counter(key, amount, self.table.monotonic() + seconds)
            return _counter(key, checked_sum(key, entry.value, amount), entry.expires)

        if seconds <= 0 and self.table.live(key) is None:
            return amount
        return cast("int", self.table.update(key, change).value)

    async def expire(self, key: str, seconds: float) -> bool:
        return self.table.expire(key, self.table.monotonic() + seconds)

    async def ttl(self, key: str) -> float | Never | None:
        entry = self.table.live(key)
        if entry is None:
            return None
        return NEVER if entry.expires == math.inf else entry.expires - self.table.monotonic()

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        for key in self._matching(pattern):
            yield key

    async def remove_matching(self, pattern: str) -> int:
        return sum([self.table.remove(key) for key in self._matching(pattern)])

    def _matching(self, pattern: str) -> list[str]:
        matches = compile_glob(pattern)
        return [key for key in self.table.live_keys() if matches(key.encode())]


class InMemoryCache(BaseCache[T]):
    """A cache in memory. The least recently used entry leaves first; expired ones leave before any live one.

    Immutable values are shared with every reader; of others each gets a copy, or what the encoded bytes give.

    :param max_entries: most entries kept, at least 1.
    :param max_bytes: most bytes of keys and encoded values kept; None: no such bound. A larger value is not stored.
    :param copy: False keeps and hands out the very objects that were stored, whatever they are: faster, and whoever
        changes one changes it for all.
    :param serializer: replaces the lossless JSON encoding of values that are not immutable.
    :param store: the table, when several handles (one for each event loop) share it; it brings its own bounds and
        clock.
    :raises CacheValueError: for a bound below 1.
    """

    backend: MemoryBackend

    def __init__(
        self,
        max_entries: int = 10_000,
        *,
        max_bytes: int | None = None,
        namespace: str = "",
        default_ttl: TTL = 300,
        copy: bool = True,
        serializer: Serializer | None = None,
        metrics: CacheMetrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        store: MemoryStore | None = None,
        leases: LeaseBook | None = None,
    ) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if bound is not None and (type(bound) is not int or bound < 1):
                raise CacheValueError(f"{name} must be an int of at least 1, got {bound!r:.80}")
        store = store or MemoryStore(max_entries, max_bytes=max_bytes, monotonic=clock.monotonic)
        counters = (metrics or CacheMetrics()).namespace(namespace)
        backend = MemoryBackend(store, ValueCodec(serializer, copy=copy), counters)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases)


def _entry(key: str, encoded: Encoded, expires: float) -> Entry:
    size = len(key) + len(encoded.data or b"")
    return Entry(key, encoded.kept, expires=expires, copy=encoded.copy, size=size)


def _counter(key: str, number: int, expires: float) -> Entry:
    return Entry(key, number, expires=expires, size=len(key) + len(str(number)))
