"""Redis while it serves, memory while it does not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from agent_service.core.errors import RedisOperationError, RedisUnavailableError
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.interface import Lookup
from agent_service.infrastructure.cache.leases import Grant, Standing
from agent_service.infrastructure.cache.memory import InMemoryCache
from agent_service.infrastructure.cache.outage import Outage
from agent_service.infrastructure.cache.redis import RedisCache
from agent_service.infrastructure.cache.values import Encoded

__all__ = ["FallbackCache"]

T = TypeVar("T")
R = TypeVar("R")


class FallbackBackend(Backend):
    """Each operation goes to one of two backends; what Redis missed is written down before memory is asked.

    A write whose outcome is unknown (sent, no reply) is written down too, because an invalidation may happen twice. An
    increment may not: one of unknown outcome is not repeated.
    """

    def __init__(self, redis: Backend, memory: Backend, outage: Outage, namespace: str) -> None:
        self.codec = redis.codec
        self.counters = redis.counters
        self._redis = redis
        self._memory = memory
        self._outage = outage
        self._namespace = namespace

    async def _run(self, operation: Callable[[Backend], Awaitable[R]], owe: Callable[[bool], None] | None = None) -> R:
        """Run an operation where it can be served.

        :param owe: writes down what Redis missed; told whether Redis may have done it all the same.
        """
        may_be_done = False
        if self._outage.breaker.closed:
            try:
                return await operation(self._redis)
            except RedisOperationError as exc:
                self.failed(exc)
                may_be_done = isinstance(exc, RedisUnavailableError) and exc.maybe_executed
        else:
            self._outage.serve_from_memory()
        if owe is not None:
            owe(may_be_done)
        return await operation(self._memory)

    async def lookup(self, key: str) -> Lookup[Any]:
        return await self._run(lambda backend: backend.lookup(key))

    async def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        return await self._run(lambda backend: backend.lookup_many(keys))

    async def exists(self, key: str) -> bool:
        return await self._run(lambda backend: backend.exists(key))

    async def ttl(self, key: str) -> float | Never | None:
        return await self._run(lambda backend: backend.ttl(key))

    async def store(self, entries: Mapping[str, Encoded], seconds: float) -> bool:
        def owe(_may_be_done: bool) -> None:
            self._outage.journal.invalidate(self._namespace, entries, overwritten=True)

        return await self._run(lambda backend: backend.store(entries, seconds), owe)

    async def grant(self, key: str, standing: Standing = "share") -> Grant:
        granted: Grant | None = None
        if self._outage.breaker.closed:
            try:
                granted = await self._redis.grant(key, standing)
            except RedisOperationError as exc:
                self.failed(exc)
        else:
            self._outage.serve_from_memory()
        return FallbackGrant(granted, self, key)

    @property
    def redis_serves(self) -> bool:
        """Whether Redis is being asked at present."""
        return self._outage.breaker.closed

    def failed(self, exc: RedisOperationError) -> None:
        """Count a failure of Redis; from now on memory serves."""
        self.counters.errors += 1
        self._outage.failed(exc)

    async def store_in_memory(self, entries: Mapping[str, Encoded], seconds: float) -> bool:
        """Store what was loaded; Redis misses nothing by it, because it held nothing."""
        return await self._memory.store(entries, seconds)

    async def remove(self, keys: Sequence[str]) -> int:
        def owe(_may_be_done: bool) -> None:
            self._outage.journal.invalidate(self._namespace, keys)

        return await self._run(lambda backend: backend.remove(keys), owe)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        def owe(may_be_done: bool) -> None:
            if not may_be_done:
                self._outage.journal.add(self._namespace, key, amount, seconds)

        return await self._run(lambda backend: backend.add(key, amount, seconds), owe)

    async def expire(self, key: str, seconds: float) -> bool:
        def owe(_may_be_done: bool) -> None:
            self._outage.journal.invalidate(self._namespace, (key,), overwritten=True)

        return await self._run(lambda backend: backend.expire(key, seconds), owe)

    async def remove_matching(self, pattern: str) -> int:
        def owe(_may_be_done: bool) -> None:
            self._outage.journal.match(self._namespace, pattern)

        return await self._run(lambda backend: backend.remove_matching(pattern), owe)

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        if self._outage.breaker.closed:
            try:
                async for key in self._redis.scan(pattern):
                    yield key
            except RedisOperationError as exc:
                self.failed(exc)
            else:
                return
        else:
            self._outage.serve_from_memory()
        async for key in self._memory.scan(pattern):
            yield key


class FallbackGrant(Grant):
    """A grant of Redis, or None when Redis did not serve as the load began.

    One of Redis is good for memory, too, should Redis fail meanwhile. None is not good for Redis: other processes may
    have invalidated the entry there since, and this one would not know.
    """

    def __init__(self, granted: Grant | None, backend: FallbackBackend, key: str) -> None:
        self.is_first = granted is None or granted.is_first
        self._granted = granted
        self._backend = backend
        self._key = key

    async def stands(self) -> bool:
        if self._granted is None or not self._backend.redis_serves:
            return not self._backend.redis_serves
        try:
            return await self._granted.stands()
        except RedisOperationError as exc:
            self._backend.failed(exc)
            return True

    async def fill(self, encoded: Encoded, seconds: float) -> bool:
        if self._backend.redis_serves:
            if self._granted is None:
                return False
            try:
                return await self._granted.fill(encoded, seconds)
            except RedisOperationError as exc:
                self._backend.failed(exc)
        return await self._backend.store_in_memory({self._key: encoded}, seconds)

    async def release(self, *, tell: bool = True) -> None:
        if self._granted is None:
            return
        try:
            await self._granted.release(tell=tell and self._backend.redis_serves)
        except RedisOperationError as exc:
            self._backend.failed(exc)


class FallbackCache(BaseCache[T]):
    """A cache that never raises for an outage: Redis serves, and while it cannot, this process's memory does.

    When Redis comes back, everything deleted, invalidated or overwritten meanwhile is invalidated there, and increments
    are added, *before* it serves a read again. What memory held is dropped then: values set during the outage are not
    pushed, because another process may know better. Memory sees only this process, so counters and reads during an
    outage are this process's own.

    :param redis: serves while it can.
    :param memory: serves meanwhile; it belongs to this cache and is emptied after an outage.
    :param outage: breaker and journal, shared by the caches of one event loop.
    """

    def __init__(self, redis: RedisCache[T], memory: InMemoryCache[T], outage: Outage) -> None:
        backend = FallbackBackend(redis.backend, memory.backend, outage, redis.namespace)
        super().__init__(backend, redis.namespace, default_ttl=redis.default_ttl, leases=redis.leases)
        self._outage = outage
        outage.protect(redis.namespace, redis.backend, memory.backend.table)

    @property
    def caught_up(self) -> bool:
        # The breaker closes only when nothing is left in the journal.
        return self._outage.breaker.closed
