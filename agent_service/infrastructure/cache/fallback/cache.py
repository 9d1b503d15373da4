"""Redis while it serves, memory while it does not."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from typing_extensions import TypeVar

from agent_service.core.errors import (
    RedisBusyError,
    RedisDeniedError,
    RedisOperationError,
    RedisUnavailableError,
    RedisUnreplicatedError,
)
from agent_service.core.globs import Globs
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.backend import Backend, Fill
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.fallback.pending import Increment
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, Lease
from agent_service.infrastructure.cache.memory.cache import InMemoryCache, MemoryBackend
from agent_service.infrastructure.cache.redis.cache import RedisBackend, RedisCache
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime

__all__ = ["FallbackBackend", "FallbackCache"]

logger = logging.getLogger("agent_service.cache")

T = TypeVar("T", default=Any)
R = TypeVar("R")


class FallbackBackend(Backend):
    """Each operation goes to one of two backends; what Redis missed is recorded before memory is asked.

    A write whose outcome is unknown (sent, no reply) is recorded too: an invalidation may happen twice, and an
    increment is numbered, so that Redis makes it once however often it is sent.
    """

    def __init__(self, redis: RedisBackend, memory: MemoryBackend, outage: Outage, namespace: str) -> None:
        self.codec = redis.codec
        self.counters = redis.counters
        self.redis = redis
        self.memory = memory
        self._outage = outage
        self._namespace = namespace
        self._denied = False

    async def _run(self, operation: Callable[[Backend], Awaitable[R]], record: Callable[[], None] | None = None) -> R:
        """Run an operation where it can be served.

        :param record: records in the journal what Redis missed.
        """
        if record is not None:
            await self._outage.wait_for_recovery()
        if self._outage.breaker.closed:
            try:
                return await operation(self.redis)
            except RedisUnreplicatedError as exc:
                self.counters.unreplicated += 1
                if record is not None:
                    record()
                self._outage.unreplicated(exc)
                return cast("R", exc.result)
            except RedisOperationError as exc:
                self.not_served(exc)
        else:
            self._outage.serve_from_memory()
        if record is not None:
            record()
        return await operation(self.memory)

    async def on_redis(self, operation: Callable[[RedisBackend], Awaitable[R]]) -> R | None:
        """Run what memory has no twin for, where Redis can serve it; None: the caller does without Redis.

        What the server denies is no outage of the caches, which may not need it.
        """
        if not self._outage.breaker.closed:
            self._outage.serve_from_memory()
            return None
        try:
            return await operation(self.redis)
        except RedisDeniedError as exc:
            self.counters.errors += 1
            if not self._denied:
                self._denied = True
                logger.warning("Redis denies what only it can share, so this process does it by itself: %s", exc)
        except RedisOperationError as exc:
            self.not_served(exc)
        return None

    @property
    def redis_serves(self) -> bool:
        """Whether Redis is being asked at present."""
        return self._outage.breaker.closed

    def failed(self, exc: RedisOperationError) -> None:
        """Count a failure of Redis; from now on memory serves."""
        self.counters.errors += 1
        self._outage.failed(exc)

    def not_served(self, exc: RedisOperationError) -> None:
        """Note that Redis gave no value, or no lease: a failure, unless only our own connections were busy.

        The caller does without it then, as with a miss.
        """
        if not isinstance(exc, RedisBusyError):
            self.failed(exc)

    # -- reading

    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> CachedValue | None:
        if self._outage.breaker.closed:
            try:
                return await self.redis.read(key, tags, with_expiry=with_expiry)
            except RedisOperationError as exc:
                self.not_served(exc)
        else:
            self._outage.serve_from_memory()
        return self.memory.peek(key)

    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        return await self._run(lambda backend: backend.read_many(keys, tags))

    async def exists(self, key: str) -> bool:
        return await self._run(lambda backend: backend.exists(key))

    async def ttl(self, key: str) -> float | Never | None:
        return await self._run(lambda backend: backend.ttl(key))

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        if self._outage.breaker.closed:
            try:
                async for key in self.redis.scan(pattern):
                    yield key
            except RedisOperationError as exc:
                if isinstance(exc, RedisDeniedError) and self.redis.does_without(exc):
                    return
                self.failed(exc)
            else:
                return
        else:
            self._outage.serve_from_memory()
        async for key in self.memory.scan(pattern):
            yield key

    # -- writing

    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        def record() -> None:
            self._outage.journal.invalidate(self._namespace, entries, overwritten=True)

        return await self._run(lambda backend: backend.store(entries, life, tags), record)

    async def lease(
        self, key: str, tags: Sequence[str] = (), if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> BackendLease:
        leased: BackendLease | None = None
        if self._outage.breaker.closed:
            try:
                leased = await self.redis.lease(key, tags, if_held, more_tags=more_tags)
            except RedisOperationError as exc:
                self.not_served(exc)
        else:
            self._outage.serve_from_memory()
        return FallbackLease(leased, self)

    async def lease_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[BackendLease]:
        leased: Sequence[BackendLease | None] = [None] * len(keys)
        if self._outage.breaker.closed:
            try:
                leased = await self.redis.lease_many(keys, tags)
            except RedisOperationError as exc:
                self.not_served(exc)
        else:
            self._outage.serve_from_memory()
        return [FallbackLease(each, self) for each in leased]

    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        in_redis = [
            each._replace(backend_lease=each.backend_lease.redis)
            for each in fills
            if isinstance(each.backend_lease, FallbackLease) and each.backend_lease.redis is not None
        ]
        if self.redis_serves and len(in_redis) == len(fills):
            try:
                return await self.redis.fill_many(in_redis, life, tags)
            except RedisOperationError as exc:
                self.failed(exc)
        return await super().fill_many(fills, life, tags)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        journal = self._outage.journal
        increment = Increment(amount, seconds)
        await self._outage.wait_for_recovery()
        if self._outage.breaker.closed:
            number = journal.changes.begin()
            may_be_done = False
            try:
                return await self.redis.add_once(key, amount, seconds, journal.changes.change(number))
            except RedisOperationError as exc:
                self.failed(exc)
                may_be_done = isinstance(exc, RedisUnavailableError) and exc.maybe_executed
            finally:
                if not may_be_done:
                    journal.changes.end(number)
            if may_be_done:
                increment = Increment(amount, seconds, number, journal.monotonic())
        else:
            self._outage.serve_from_memory()
        journal.add(self._namespace, key, increment, restarted=self.memory.table.live(key) is None)
        return await self.memory.add(key, amount, seconds)

    async def expire(self, key: str, seconds: float) -> bool:
        def record() -> None:
            self._outage.journal.invalidate(self._namespace, (key,), overwritten=True)

        return await self._run(lambda backend: backend.expire(key, seconds), record)

    # -- invalidating

    async def remove(self, keys: Sequence[str]) -> int:
        return await self._run(
            lambda backend: backend.remove(keys), lambda: self._outage.journal.invalidate(self._namespace, keys)
        )

    async def remove_matching(self, globs: Globs) -> int:
        return await self._run(
            lambda backend: backend.remove_matching(globs),
            lambda: self._outage.journal.invalidate_matching(self._namespace, globs),
        )

    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        await self._run(
            lambda backend: backend.invalidate_tags(tags),
            lambda: self._outage.journal.invalidate_tags(self._namespace, tags),
        )

    async def clear(self) -> None:
        await self._run(lambda backend: backend.clear(), lambda: self._outage.journal.clear(self._namespace))


class FallbackLease(BackendLease):
    """A lease of Redis, or None when Redis did not serve as the load began.

    Both are good for memory, should Redis not serve when the load ends: only this process changes what is there, and
    whatever it invalidates breaks its own :class:`Lease`. None is not good for Redis: other processes may have
    invalidated the entry there since, and this one would not know.
    """

    def __init__(self, redis: BackendLease | None, backend: FallbackBackend) -> None:
        self.is_first = redis is None or redis.is_first
        self.redis = redis
        self._backend = backend

    async def holds(self) -> bool:
        if self.redis is None or not self._backend.redis_serves:
            return not self._backend.redis_serves
        try:
            return await self.redis.holds()
        except RedisOperationError as exc:
            self._backend.failed(exc)
            return True

    async def fill(self, lease: Lease, encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> bool:
        if self._backend.redis_serves:
            if self.redis is None:
                return False
            try:
                return await self.redis.fill(lease, encoded, life, tags)
            except RedisOperationError as exc:
                self._backend.failed(exc)
        memory = await self._backend.memory.lease(lease.key, tags)  # before it is asked whether ours is broken
        stored = await memory.fill(lease, encoded, life, tags)
        if stored:
            await self.release()  # nobody else ends the lease in Redis
        return stored

    async def release(self, *, tell: bool = True) -> None:
        if self.redis is None:
            return
        try:
            await self.redis.release(tell=tell and self._backend.redis_serves)
        except RedisOperationError as exc:
            self._backend.failed(exc)


class FallbackCache(BaseCache[T]):
    """A cache that never raises for an outage: Redis serves, and while it cannot, this process's memory does.

    When Redis comes back, everything deleted, invalidated or overwritten meanwhile is invalidated there, and increments
    are added, *before* it serves a read again; writes may wait for the end of that, as long as one operation on Redis
    may take. What memory held is dropped then: values set during the outage are not pushed, because another process may
    know better. Memory sees only this process, so counters and reads during an outage are this process's own.

    :param redis: serves while it can.
    :param memory: serves meanwhile; it belongs to this cache and is emptied after an outage.
    :param outage: breaker and journal, shared by the caches of one event loop.
    """

    backend: FallbackBackend

    def __init__(self, redis: RedisCache[T], memory: InMemoryCache[T], outage: Outage) -> None:
        backend = FallbackBackend(redis.backend, memory.backend, outage, redis.namespace)
        super().__init__(backend, redis.namespace, default_ttl=redis.default_ttl, leases=redis.leases)
        outage.protect(redis.namespace, redis.backend, memory.backend.table)
        self._outage = outage

    @property
    def caught_up(self) -> bool:
        return self._outage.caught_up
