"""What a cache-backed store knows about its cache: whether it serves, and which keys it may hold wrongly."""

import math
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from sys import getsizeof
from typing import Any, Final, TypeVar

from agent_service.context.documents import translated
from agent_service.context.fences import LEASE_SECONDS, Fence
from agent_service.context.interface import Document, Key
from agent_service.context.keys import encode_key
from agent_service.context.renewal import Renewal
from agent_service.core.breaker import CircuitBreaker
from agent_service.core.clock import Clock
from agent_service.core.errors import (
    ContextStoreError,
    DatabaseUnavailableError,
    RedisRefusedError,
    RedisUnavailableError,
)
from agent_service.core.logging import logger
from agent_service.core.memo import size_of

__all__ = ["CacheGuard"]

T = TypeVar("T")

_OUTAGES = (RedisUnavailableError, RedisRefusedError, DatabaseUnavailableError, OSError)
_MOST_DIRTY: Final = 10_000
_MOST_DIRTY_BYTES: Final = 16 << 20


class CacheGuard:
    """Runs the operations on a cache so that none of them raises for its sake.

    A key is *dirty* from a write that could not uncache it until it is uncached; a dirty key is not read. An outage
    opens a circuit breaker: nothing is asked of the cache until a probe, which uncaches every dirty key, succeeds.
    Beyond 10,000 dirty keys, or 16 MiB of them, nothing is read until all that was cached before is over. It belongs to
    one store.

    Every exception counts, whoever wrote the cache. Cancellations and exits go through, and leave dirty what they
    may have left cached.

    :param ttl: seconds a cached document lives at most.
    :param lease: seconds for which a write stands at the fence unless it is renewed.
    """

    def __init__(self, fence: Fence, *, ttl: float, lease: float, clock: Clock) -> None:
        self._fence = fence
        self._lease = lease
        self._ttl = ttl
        self._clock = clock
        self._breaker = CircuitBreaker(clock=clock)
        self._dirty: dict[str, Key] = {}
        self._dirty_bytes = 0
        self._blind_until = -math.inf
        self._told: set[type[BaseException]] = set()
        self.counters: Counter[str] = Counter(hits=0, misses=0, fills=0, fills_refused=0, cache_errors=0)

    def trusts(self, key: Key) -> bool:
        """Whether the cache may be read for the key."""
        if not self._breaker.closed or (self._dirty and encode_key(key) in self._dirty):
            return False
        return self._blind_until == -math.inf or self._clock.monotonic() >= self._blind_until

    async def read(self, reading: Awaitable[T]) -> T | None:
        """Await a read of the cache; None where it fails."""
        try:
            return await _asked(reading)
        except ContextStoreError as exc:
            self._failed(exc)
            return None

    async def begin(self, keys: Sequence[Key]) -> str:
        """Begin a write at the fence; give its token, or one that caches nothing."""
        if await self._serves(keys):
            try:
                return await _asked(self._fence.begin(keys))
            except ContextStoreError as exc:
                self._failed(exc)
        self._mark(keys)
        return ""

    def renewing(self, token: str, keys: Sequence[Key]) -> Renewal:
        """Keep a write at the fence, which :meth:`begin` gave the token of, until the renewal is stopped."""
        # A process of an earlier release shortens to 10 s what stands at a fence.
        return Renewal(token, lambda present: self._renew(present, keys), every=min(self._lease, LEASE_SECONDS) / 3)

    async def _renew(self, token: str, keys: Sequence[Key]) -> str:
        if token == "" or not self._breaker.closed:  # finishing makes the keys dirty then
            return token
        try:
            return await _asked(self._fence.renew(token, keys))
        except ContextStoreError as exc:
            self._failed(exc)
            return token

    async def finish(self, token: str, keys: Sequence[Key], documents: Mapping[Any, Document], ttl: float) -> None:
        """Finish a write at the fence; where that fails its keys are dirty."""
        if self._breaker.closed:
            try:
                await _asked(self._fence.finish(token, keys, documents, ttl))
            except ContextStoreError as exc:
                self._failed(exc)
            except BaseException:
                self._mark(keys)
                raise
            else:
                self._clean(keys)
                return
        self._mark(keys)

    async def lease(self, keys: Sequence[Key]) -> str | None:
        """Take a lease for a load; None where nothing can be cached."""
        if not await self._serves(keys) or self._clock.monotonic() < self._blind_until:
            return None
        try:
            dirty = [key for key in keys if encode_key(key) in self._dirty] if self._dirty else []
            if dirty:
                await _asked(self._fence.finish("", dirty, {}, self._ttl))
                self._clean(dirty)
            return await _asked(self._fence.lease(keys))
        except ContextStoreError as exc:
            self._failed(exc)
            return None

    async def fill(self, token: str, keys: Sequence[Key], documents: Mapping[Any, Document], ttl: float) -> None:
        """End a load at the fence."""
        try:
            filled = await _asked(self._fence.fill(token, keys, documents, ttl))
        except ContextStoreError as exc:
            self._failed(exc)
            return
        self.counters["fills"] += filled
        self.counters["fills_refused"] += len(documents) - filled

    async def _serves(self, keys: Sequence[Key]) -> bool:
        """Whether the cache serves; if it is time to try again, try."""
        if self._breaker.closed:
            return True
        if not self._breaker.try_probe():
            return False
        uncached = list(self._dirty.values()) or list(keys[:1])
        try:
            await _asked(self._fence.finish("", uncached, {}, self._ttl))
        except ContextStoreError as exc:
            if _is_outage(exc):
                self._breaker.attempt_failed()
                return False
            # One of the keys is refused; it stays dirty until it is uncached by itself.
        except BaseException:
            self._breaker.attempt_failed()
            raise
        else:
            self._clean(uncached)
        self._breaker.probe_succeeded()
        self._breaker.close()
        logger.info("The cache of a context store serves again")
        return True

    def _failed(self, exc: ContextStoreError) -> None:
        self.counters["cache_errors"] += 1
        if _is_outage(exc):
            if self._breaker.failed():
                logger.warning("The cache of a context store does not serve; the database serves alone: %s", exc)
        elif type(exc.__cause__ or exc) not in self._told:
            self._told.add(type(exc.__cause__ or exc))
            logger.warning("The cache of a context store failed; the database serves where it does: %s", exc)

    def _mark(self, keys: Sequence[Key]) -> None:
        news = {text: key for text, key in zip(map(encode_key, keys), keys, strict=True) if text not in self._dirty}
        self._dirty.update(news)
        self._dirty_bytes += size_of(news)
        if len(self._dirty) > _MOST_DIRTY or self._dirty_bytes > _MOST_DIRTY_BYTES:
            self._dirty.clear()
            self._dirty_bytes = 0
            self._blind_until = self._clock.monotonic() + self._ttl

    def _clean(self, keys: Sequence[Key]) -> None:
        if self._dirty:
            for text in map(encode_key, keys):
                if text in self._dirty:
                    del self._dirty[text]
                    self._dirty_bytes -= getsizeof(text)


async def _asked(call: Awaitable[T]) -> T:
    """Await a call of the cache; what others wrote may raise what is not ours."""
    with translated("the cache", "use the cache"):
        return await call


def _is_outage(exc: ContextStoreError) -> bool:
    """Whether the cache serves no key at all, as far as its error tells."""
    return isinstance(exc.__cause__, _OUTAGES)
