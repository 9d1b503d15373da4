"""The cache in memory: fast, bounded, of this process alone."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast, overload

from typing_extensions import TypeVar

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.codec import Serializer
from agent_service.core.errors import CacheValueError, UndecodableError
from agent_service.core.glob import Matches, compile_glob
from agent_service.core.globs import Globs
from agent_service.core.keys import check_key
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.ttl import NEVER, TTL, Never, resolve_ttl
from agent_service.core.values.stored import Stored
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, Lease, LeaseBook
from agent_service.infrastructure.cache.table import Entry, MemoryStore
from agent_service.infrastructure.cache.table_tags import Token
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime, ValueCodec, checked_sum

__all__ = ["InMemoryCache", "MemoryBackend"]

T = TypeVar("T", default=Any)
D = TypeVar("D")


class MemoryBackend(Backend):
    """Entries in a :class:`MemoryStore`."""

    def __init__(self, table: MemoryStore, codec: ValueCodec, counters: NamespaceCounters) -> None:
        self.table = table
        self.codec = codec
        self.counters = counters
        self.hot_table = table, counters

    async def read(
        self,
        key: str,
        tags: Sequence[str] = (),  # noqa: ARG002 - an entry knows its own
        *,
        with_expiry: bool = False,  # noqa: ARG002 - nobody keeps copies of it
    ) -> CachedValue | None:
        return self.peek(key)

    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:  # noqa: ARG002
        return {key: found for key in keys if (found := self.peek(key)) is not None}

    def peek(self, key: str) -> CachedValue | None:
        """:meth:`read`, at once."""
        try:
            found = self.table.read(key)
        except UndecodableError:  # by the serializer that wrote it
            self.counters.undecodable += 1
            found = None
        if found is None:
            self.counters.misses += 1
            return None
        value, entry = found
        now = self.table.monotonic()
        left = entry.fresh_until - now
        if left > 0:
            self.counters.hits += 1
        else:
            self.counters.misses += 1
        return CachedValue(value, "memory", now - entry.created, left, entry.fresh_until - entry.created, entry.raised)

    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        tokens = self.table.tags.take(tags) if tags else ()
        stored = True
        for key, encoded in entries.items():
            stored &= self.put(key, encoded, life, tokens)
        return stored

    def put(self, key: str, encoded: Encoded, life: Lifetime, tokens: tuple[Token, ...]) -> bool:
        """Write one entry with tokens taken earlier; False when there was no room for it."""
        now = self.table.monotonic()
        size = len(key) + len(encoded.data or b"")
        return self.table.put(
            Entry(
                key,
                encoded.kept,
                expires=now + life.seconds + life.stale_for,
                created=now,
                fresh_until=now + life.seconds,
                due=None if life.refresh_at is None else now + life.seconds * life.refresh_at,
                copy=encoded.copy,
                size=size,
                tokens=tokens,
                raised=encoded.raised,
            )
        )

    async def lease(
        self,
        key: str,
        tags: Sequence[str] = (),
        if_held: IfHeld = "share",  # noqa: ARG002 - nobody else loads
        *,
        more_tags: bool = False,  # noqa: ARG002 - the lease book knows all there is to know
    ) -> BackendLease:
        return MemoryLease(self, key, tags)

    async def remove(self, keys: Sequence[str]) -> int:
        return sum([self.table.remove(key) for key in keys])

    async def exists(self, key: str) -> bool:
        return self.table.live(key) is not None

    async def add(self, key: str, amount: int, seconds: float) -> int:
        def change(entry: Entry | None) -> Entry:
            now = self.table.monotonic()
            if entry is None:
                return Entry(key, amount, expires=now + seconds, created=now, size=_size(key, amount))
            number = checked_sum(key, entry.value, amount)
            return Entry(
                key,
                number,
                expires=entry.expires,
                created=entry.created,
                fresh_until=entry.fresh_until,
                due=entry.settled_until,
                size=_size(key, number),
                tokens=entry.tokens,
            )

        if seconds <= 0 and self.table.live(key) is None:
            self.table.remove(key)
            return amount
        return cast("int", self.table.update(key, change).value)

    async def expire(self, key: str, seconds: float) -> bool:
        return self.table.expire(key, self.table.monotonic() + seconds)

    async def ttl(self, key: str) -> float | Never | None:
        entry = self.table.live(key)
        if entry is None:
            return None
        return NEVER if entry.fresh_until == math.inf else entry.fresh_until - self.table.monotonic()

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        for key in _matching(self.table.live_keys(), compile_glob(pattern)):
            yield key

    async def remove_matching(self, globs: Globs) -> int:
        return sum([self.table.remove(key) for key in _matching(self.table.keys(), globs.matches)])

    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        self.table.tags.invalidate(tags)

    async def clear(self) -> None:
        self.table.clear()


class MemoryLease(BackendLease):
    """For entries that only this process changes: the :class:`Lease` knows of every invalidation but those of tags."""

    def __init__(self, backend: MemoryBackend, key: str, tags: Sequence[str]) -> None:
        self.is_first = True
        self._backend = backend
        self._key = key
        self._tags = tags
        self._tokens = backend.table.tags.take(tags) if tags else ()

    async def holds(self) -> bool:
        return not any(token.dead for token in self._tokens)

    async def fill(self, lease: Lease, encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> bool:
        if lease.broken or not await self.holds():
            return False
        tokens = self._tokens
        if len(tags) > len(self._tags):
            tokens = (*tokens, *self._backend.table.tags.take([tag for tag in tags if tag not in self._tags]))
        self._backend.put(self._key, encoded, life, tokens)
        return True

    async def release(self, *, tell: bool = True) -> None:
        pass  # there is nothing to end


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
        if store is None:
            store = MemoryStore(max_entries, max_bytes=max_bytes, monotonic=clock.monotonic)
        counters = (metrics or CacheMetrics()).namespace(namespace)
        backend = MemoryBackend(store, ValueCodec(serializer, copy=copy), counters)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases, monotonic=store.monotonic)

    @overload
    async def get(self, key: str) -> T | None: ...
    @overload
    async def get(self, key: str, default: D) -> T | D: ...
    async def get(self, key: str, default: object = None) -> object:
        table = self.backend.table
        entry = table.find(check_key(key))
        if entry is None:
            self.counters.misses += 1
            return default
        value, copy = entry.value, entry.copy  # before the check: an entry that another thread kills loses its value
        if entry.fresh_until <= table.monotonic() or entry.raised or (entry.tokens and entry.outdated()):
            self.counters.misses += 1
            return default
        try:
            own = value if copy is None else copy(value)
            table.touch(key)
        except (KeyError, UndecodableError):  # another thread removed it since, or it is damaged
            return await super().get(key, default)
        self.counters.hits += 1
        return own if type(own) is not Stored else self._value(CachedValue(own, "memory"), default)


def _matching(keys: list[str], matches: Matches) -> list[str]:
    return [key for key in keys if matches(key.encode())]


def _size(key: str, number: int) -> int:
    return len(key) + len(str(number))
