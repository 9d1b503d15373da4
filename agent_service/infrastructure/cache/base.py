"""What every cache shares, whatever it is stored in: checking arguments, breaking leases, counting, loading."""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from agent_service.core.errors import CacheKeyError, CacheSerializationError, CacheValueError
from agent_service.core.glob import compile_glob
from agent_service.core.keys import check_key, normalise_namespace
from agent_service.core.singleflight import Fence, SingleFlight
from agent_service.core.ttl import TTL, Never, resolve_ttl
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.interface import MISS, ICache, Lookup
from agent_service.infrastructure.cache.leases import Lease, LeaseBook
from agent_service.infrastructure.cache.values import Encoded, check_amount

__all__ = ["BaseCache", "check_lock"]

T = TypeVar("T")

_FIRST_POLL = 0.01
_LONGEST_POLL = 0.1
"""Seconds between two looks for what another process loads."""

_WILDCARDS = frozenset("*?[\\")


class BaseCache(ICache[T]):
    """The contract, resting on the few operations of a :class:`Backend`.

    :param namespace: "" is the default namespace.
    :param default_ttl: seconds for ``ttl=None``; infinity: no expiry.
    :param leases: shared by the handles of one namespace in this process; None: a book of its own.
    """

    def __init__(self, backend: Backend, namespace: str, *, default_ttl: float, leases: LeaseBook | None) -> None:
        self.backend = backend
        self.codec = backend.codec
        self.counters = backend.counters
        self.namespace = normalise_namespace(namespace)
        self.default_ttl = default_ttl
        self.leases = LeaseBook() if leases is None else leases
        self.flights = SingleFlight()

    @property
    def caught_up(self) -> bool:
        """Whether everything invalidated through this handle so far is known to the backend that processes share."""
        return True

    # -- the contract

    async def lookup(self, key: str) -> Lookup[T]:
        return await self.backend.lookup(check_key(key))

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        wanted = _check_keys(keys)
        return await self.backend.lookup_many(wanted) if wanted else {}

    async def set(self, key: str, value: T, ttl: TTL | None = None) -> bool:
        return await self.set_many({check_key(key): value}, ttl)

    async def set_many(self, mapping: Mapping[str, T], ttl: TTL | None = None) -> bool:
        if not isinstance(mapping, Mapping):
            raise CacheValueError(f"mapping must map keys to values, not {type(mapping).__name__}; pass a dict")
        keys = _check_keys(mapping)
        seconds = resolve_ttl(ttl, self.default_ttl)
        entries = {key: self.codec.encode(value) for key, value in mapping.items()}
        self.leases.break_keys(keys)
        if not keys:
            return True
        if seconds <= 0:
            await self.backend.remove(keys)
            return False
        self.counters.sets += len(keys)
        return await self.backend.store(entries, seconds)

    async def delete(self, key: str) -> bool:
        return await self.delete_many([key]) > 0

    async def delete_many(self, keys: Iterable[str]) -> int:
        wanted = _check_keys(keys)
        self.leases.break_keys(wanted)
        if not wanted:
            return 0
        removed = await self.backend.remove(wanted)
        self.counters.deletes += removed
        return removed

    async def exists(self, key: str) -> bool:
        return await self.backend.exists(check_key(key))

    async def increment(self, key: str, amount: int = 1, ttl: TTL | None = None) -> int:
        check_key(key)
        check_amount(amount)
        seconds = resolve_ttl(ttl, self.default_ttl)
        self.leases.break_keys((key,))
        return await self.backend.add(key, amount, seconds)

    async def expire(self, key: str, ttl: TTL) -> bool:
        check_key(key)
        seconds = resolve_ttl(ttl, self.default_ttl)
        return await self.backend.expire(key, seconds) if seconds > 0 else await self.delete(key)

    async def ttl(self, key: str) -> float | Never | None:
        return await self.backend.ttl(check_key(key))

    def scan(self, pattern: str = "*") -> AsyncIterator[str]:
        return self.backend.scan(check_key(pattern, name="pattern"))

    async def delete_pattern(self, pattern: str) -> int:
        if _WILDCARDS.isdisjoint(check_key(pattern, name="pattern")):
            return await self.delete_many([pattern])
        self.leases.break_matching(compile_glob(pattern))
        removed = await self.backend.remove_matching(pattern)
        self.counters.deletes += removed
        return removed

    async def clear(self) -> None:
        await self.delete_pattern("*")

    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: TTL | None = None,
        context: Iterable[contextvars.ContextVar[Any]] = (),
        lock: str | None = None,
    ) -> T:
        check_key(key)
        if not callable(loader):
            raise CacheValueError(f"loader must be a function to call on a miss, not {type(loader).__name__}")
        seconds = resolve_ttl(ttl, self.default_ttl)
        exclusive = check_lock(lock)
        found = await self.lookup_settled(key)
        if found is not MISS:
            return found.value
        loaded = await self.load(key, loader, seconds, context=context, exclusive=exclusive)
        value: T = loaded.open()
        return value

    async def aclose(self) -> None:
        await self.flights.aclose()

    # -- the parts of a load, for decorators

    async def lookup_settled(self, key: str) -> Lookup[T]:
        """Read; once more when a load landed meanwhile, because the miss may be older than what that load stored."""
        landed = self.flights.landed
        found = await self.backend.lookup(key)
        if found is MISS and not await self._may_join(key) and landed != self.flights.landed:
            found = await self.backend.lookup(key)
        return found

    async def _may_join(self, key: str) -> bool:
        """Whether a load is running that this caller may share: nobody broke its lease, in no process, until now."""
        lease = self.flights.fence_of(key)
        if not isinstance(lease, Lease):
            return False
        if lease.grant is not None and not await lease.grant.stands():
            self.leases.close(lease)
        return self.flights.fence_of(key) is lease

    async def load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        seconds: float,
        *,
        context: Iterable[contextvars.ContextVar[Any]] = (),
        cache_none: bool = True,
        fresh: bool = False,
        strict: bool = True,
        exclusive: bool = False,
    ) -> Encoded:
        """Join or make the load of a missing key; for each caller, ``open()`` what it gives.

        :param cache_none: whether a result of None is stored.
        :param fresh: make a new load, and let none that began earlier store its value.
        :param strict: raise when a result cannot be stored; otherwise hand it on as it is.
        :param exclusive: wait for the load of another process in place of making one.
        """
        if fresh:
            self.leases.break_keys((key,))

        async def run(fence: Fence) -> Encoded:
            assert isinstance(fence, Lease)
            try:
                if exclusive and not fresh:
                    elsewhere = await self._wait_for_other(fence)
                    if elsewhere is not None:
                        return elsewhere
                else:
                    fence.grant = await self.backend.grant(key, "break" if fresh else "share")
                return await self._load_and_fill(fence, loader, seconds, cache_none=cache_none, strict=strict)
            finally:
                self.leases.close(fence)
                if fence.grant is not None:
                    await asyncio.shield(fence.grant.release())

        return await self.flights.run(key, run, lambda: self.leases.open(key), context=context)

    async def _wait_for_other(self, lease: Lease) -> Encoded | None:
        """Wait while another process loads; give what it stored, or None when it is for this one to load."""
        pause = _FIRST_POLL
        while True:
            lease.grant = await self.backend.grant(lease.key, "leave")
            if lease.grant.is_first:
                return None
            await lease.grant.release(tell=False)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
            found = await self.backend.lookup(lease.key)
            if found is not MISS:
                return self.codec.encode(found.value)

    async def _load_and_fill(
        self, lease: Lease, loader: Callable[[], Awaitable[T]], seconds: float, *, cache_none: bool, strict: bool
    ) -> Encoded:
        self.counters.loads += 1
        try:
            value = await _awaitable(loader())
        except Exception:
            self.counters.load_errors += 1
            raise
        if value is None and not cache_none:
            return Encoded(None, None, None, None)
        try:
            encoded = self.codec.encode(value)
        except CacheSerializationError:
            self.counters.errors += 1
            if strict:
                raise
            return Encoded(value, None, value, None)
        if seconds > 0:
            await self._fill(lease, encoded, seconds)
        return encoded

    async def _fill(self, lease: Lease, encoded: Encoded, seconds: float) -> None:
        """Store what was loaded, unless an invalidation came first."""
        if lease.broken or lease.grant is None or not await lease.grant.fill(encoded, seconds):
            self.counters.fill_rejected += 1
        else:
            self.counters.sets += 1


def check_lock(lock: str | None) -> bool:
    """Tell whether a load is to be made by one process only."""
    if lock is not None and lock != "distributed":
        raise CacheValueError(f'lock must be None or "distributed", got {lock!r:.80}')
    return lock is not None


def _awaitable(loading: Awaitable[T]) -> Awaitable[T]:
    if not inspect.isawaitable(loading):
        raise CacheValueError(f"loader must be an async function; it returned {type(loading).__name__}")
    return loading


def _check_keys(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise CacheKeyError(f"keys must be several keys, got {type(keys).__name__}: {keys!r:.80}; put it in a list")
    return list(dict.fromkeys(check_key(key) for key in keys))
