"""Memory in front of Redis: reads that cost no round trip, coherent by what Redis pushes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from typing_extensions import TypeVar

from agent_service.core.errors import CacheValueError
from agent_service.core.globs import Globs
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.backend import Backend, Fill
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, Lease
from agent_service.infrastructure.cache.near.copies import NearCopies
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime

__all__ = ["TieredCache"]

T = TypeVar("T", default=Any)
R = TypeVar("R")


class TieredBackend(Backend):
    """Copies before another backend. What this process changes it drops from its copies at once, before and after.

    Before, so that no copy of what is being removed is read; after, so that a read that began meanwhile leaves none.
    """

    def __init__(self, far: Backend, near: NearCopies) -> None:
        self.codec = far.codec
        self.counters = far.counters
        self.near = near
        self.hot_table = near.table, near.counts
        self._far = far

    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> CachedValue | None:  # noqa: ARG002
        found = self.near.read(key)
        if found is not None:
            return found
        lease, began = self.near.lease(key), self.near.now()
        try:
            found = await self._far.read(key, tags, with_expiry=True)
            if found is not None and found.level == "redis":
                self.near.keep(lease, began, found)
        finally:
            self.near.end(lease)
        return found

    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        found = {key: copy for key in keys if (copy := self.near.read(key)) is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            found.update(await self._far.read_many(missing, tags))
        return found

    async def exists(self, key: str) -> bool:
        return await self._far.exists(key)

    async def ttl(self, key: str) -> float | Never | None:
        return await self._far.ttl(key)

    def scan(self, pattern: str) -> AsyncIterator[str]:
        return self._far.scan(pattern)

    async def _change(self, drop: Callable[[], None], change: Awaitable[R]) -> R:
        drop()
        try:
            return await change
        finally:
            drop()

    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        return await self._change(lambda: self.near.drop(entries), self._far.store(entries, life, tags))

    async def lease(
        self, key: str, tags: Sequence[str] = (), if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> BackendLease:
        return TieredLease(await self._far.lease(key, tags, if_held, more_tags=more_tags), self.near, key)

    async def lease_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[BackendLease]:
        leased = await self._far.lease_many(keys, tags)
        return [TieredLease(each, self.near, key) for key, each in zip(keys, leased, strict=True)]

    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        far = [
            each._replace(backend_lease=each.backend_lease.far)
            for each in fills
            if isinstance(each.backend_lease, TieredLease)
        ]
        keys = [each.lease.key for each in fills]
        return await self._change(lambda: self.near.drop(keys), self._far.fill_many(far, life, tags))

    async def add(self, key: str, amount: int, seconds: float) -> int:
        return await self._change(lambda: self.near.drop((key,)), self._far.add(key, amount, seconds))

    async def expire(self, key: str, seconds: float) -> bool:
        return await self._change(lambda: self.near.drop((key,)), self._far.expire(key, seconds))

    async def remove(self, keys: Sequence[str]) -> int:
        return await self._change(lambda: self.near.drop(keys), self._far.remove(keys))

    async def remove_matching(self, globs: Globs) -> int:
        return await self._change(lambda: self.near.drop_matching(globs.matches), self._far.remove_matching(globs))

    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        await self._change(lambda: self.near.drop_tags(tags), self._far.invalidate_tags(tags))

    async def clear(self) -> None:
        await self._change(self.near.drop_all, self._far.clear())


class TieredLease(BackendLease):
    """The lease of the far backend; what it stores replaces the copy there was."""

    def __init__(self, leased: BackendLease, near: NearCopies, key: str) -> None:
        self.is_first = leased.is_first
        self.far = leased
        self._near = near
        self._key = key

    async def holds(self) -> bool:
        return await self.far.holds()

    async def fill(self, lease: Lease, encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> bool:
        try:
            return await self.far.fill(lease, encoded, life, tags)
        finally:
            self._near.drop((self._key,))

    async def release(self, *, tell: bool = True) -> None:
        await self.far.release(tell=tell)


class TieredCache(BaseCache[T]):
    """Copies in memory in front of a cache in Redis. A hit in memory costs no round trip.

    What this process changes, its own reads see at once. What others change, by whatever means, is seen as soon as
    Redis has pushed it, and never later than the feed's ``max_staleness`` after the change. While Redis is away the
    copies serve until trust in them is over, and then whatever ``cache`` does in an outage.

    :param cache: in Redis, with memory behind it or not; it is used through this one from now on.
    :param feed: shared by the caches of one client and prefix; started here, and closed by its owner.
    :param max_entries: most copies kept; the least recently used leave first.
    :raises CacheValueError: for a bound below 1.
    """

    backend: TieredBackend

    def __init__(self, cache: RedisCache[T] | FallbackCache[T], feed: NearFeed, *, max_entries: int = 10_000) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise CacheValueError(f"max_entries must be an int of at least 1, got {max_entries!r:.80}")
        redis = cache.backend.redis if isinstance(cache, FallbackCache) else cache.backend
        counts = cache.counters.l1
        near = NearCopies(max_entries, cache.codec, clock=feed.clock, longest=feed.longest, counts=counts)
        backend = TieredBackend(cache.backend, near)
        super().__init__(backend, cache.namespace, default_ttl=cache.default_ttl, leases=cache.leases)
        self._cache = cache
        feed.watch(redis.names, redis.tokens, near)
        feed.start()

    @property
    def caught_up(self) -> bool:
        return self._cache.caught_up
