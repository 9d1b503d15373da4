"""One load, from its lease to the stored value.

Invariants:

1. The lease is taken before the loader is called: in this process when the flight starts, in the backend first thing in
   the load. Whatever is invalidated from then on breaks one of them.
2. The value is stored only while both hold, and storing it ends the one in the backend. A load that an invalidation
   overtook stores nothing; those who waited for it get its result all the same.
3. However a load ends, both leases end with it, also when it is cancelled meanwhile.
4. A result is stored only if it comes back as it is: as the bytes that were written, and as the return annotation of
   its readers says. What does not is given to the callers and stays out of the cache.
5. The loader reads from the primary: a replica may lag behind the invalidation that made this load necessary.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from agent_service.core.current_reads import CURRENT_READS
from agent_service.core.errors import CacheSerializationError, CacheValueError, UndecodableError
from agent_service.core.metrics import NamespaceCounters
from agent_service.core.singleflight import Breakable
from agent_service.core.tracing import TRACING, span
from agent_service.core.values.stored import Stored, plain
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.leases import BackendLease, Lease, LeaseBook
from agent_service.infrastructure.cache.loads.failures import Failures
from agent_service.infrastructure.cache.loads.policy import LoadPolicy, check_tags
from agent_service.infrastructure.cache.loads.raised import describe, describe_value, interpret
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime

__all__ = ["Filler", "Loader", "awaitable", "opened", "value_of"]

T = TypeVar("T")
Loader = Callable[[], Awaitable[Any]]

_FIRST_POLL = 0.01
_LONGEST_POLL = 0.1
"""Seconds between two looks for what another process loads."""


class Filler:
    """Runs loads under leases and stores what they give.

    :param span_attributes: of the span of each load.
    """

    def __init__(
        self, backend: Backend, leases: LeaseBook, failures: Failures, span_attributes: Mapping[str, str]
    ) -> None:
        self._span_attributes = span_attributes
        self._backend = backend
        self._counters = backend.counters
        self._leases = leases
        self._failures = failures

    async def run(
        self,
        lease: Breakable,
        *,
        loader: Loader,
        policy: LoadPolicy,
        fresh: bool = False,
        backend_lease: BackendLease | None = None,
    ) -> Encoded:
        """Load and store, or give what another process loaded.

        :param lease: of the load.
        :param fresh: whether loads that began earlier, in whatever process, must not store their values.
        :param backend_lease: the same in the backend, where it was taken already.
        """
        assert isinstance(lease, Lease)
        try:
            if backend_lease is not None:
                lease.backend_lease = backend_lease
            elif policy.lock is not None and not fresh:
                elsewhere = await self._wait_for_other(lease, policy)
                if elsewhere is not None:
                    return elsewhere
            else:
                lease.backend_lease = await self._backend.lease(
                    lease.key, lease.tags, "break" if fresh else "share", more_tags=lease.more_tags
                )
            if TRACING.observer is None:
                return await self._load_and_fill(lease, loader, policy)
            with span("cache load", self._span_attributes):
                return await self._load_and_fill(lease, loader, policy)
        finally:
            await self._leases.end(lease)

    async def _wait_for_other(self, lease: Lease, policy: LoadPolicy) -> Encoded | None:
        """Wait while another process loads; give what it stored, or None when it is for this one to load.

        Who gets the lease looks once more, because the load of another process may have ended since this one looked.
        """
        pause = _FIRST_POLL
        while True:
            lease.backend_lease = await self._backend.lease(lease.key, lease.tags, "leave", more_tags=lease.more_tags)
            if not lease.backend_lease.is_first:
                await lease.backend_lease.release(tell=False)
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_POLL)
            found = await self._backend.read(lease.key, lease.tags)
            # The read that brought the caller here was counted.
            self._counters.take_back(found.level if found is not None and found.left > 0 else None)
            if found is not None and found.left > 0:
                given = value_of(found, policy, self._counters)
                if given is not None:
                    try:
                        return self._backend.codec.encode(given[0])
                    except CacheSerializationError:  # no version of this package wrote it
                        self._counters.undecodable += 1
            if lease.backend_lease.is_first:
                return None

    async def _load_and_fill(self, lease: Lease, loader: Loader, policy: LoadPolicy) -> Encoded:
        self._counters.loads += 1
        try:
            CURRENT_READS.set(True)  # the load has a context of its own
            value = await awaitable(loader())
        except Exception as exc:
            self._counters.load_errors += 1
            await self._keep_failure(lease, exc, policy)
            raise
        if self._failures.known:
            self._failures.forget((lease.key,))
        life = policy.life_of(value) if policy.life is None or value is None else policy.life
        try:
            encoded = self._backend.codec.encode(value, annotated=policy.annotated)
        except CacheSerializationError as exc:
            self._counters.errors += 1
            if policy.strict:
                raise
            return Encoded(value, None, value, None, refusal=str(exc))
        # What memory keeps as it is holds no instance of a class, so it can only change where something is rebuilt.
        is_kept = encoded.kept is not encoded.data and not policy.rebuilds
        if policy.come_back is not None and not is_kept and not policy.come_back(encoded):
            self._counters.errors += 1
            return Encoded(value, None, value, None)
        if life is not None and life.seconds > 0:
            more = () if policy.tags is None else check_tags(policy.tags(value))
            stored = encoded
            if policy.seen:
                described = describe_value(value, policy.seen)
                stored = _as_raised(self._backend.codec.encode(described, annotated=policy.annotated))
            await self.fill(lease, stored, life, tuple(dict.fromkeys((*lease.tags, *more))))
        return encoded

    async def fill(self, lease: Lease, encoded: Encoded, life: Lifetime, tags: Sequence[str]) -> None:
        """Store what was loaded, unless an invalidation came first."""
        backend_lease = lease.backend_lease
        if lease.broken or backend_lease is None or not await backend_lease.fill(lease, encoded, life, tags):
            self._counters.fill_rejected += 1
        else:
            lease.backend_lease = None  # it ended when it was filled
            self._counters.sets += 1

    async def _keep_failure(self, lease: Lease, exc: Exception, policy: LoadPolicy) -> None:
        life = policy.life_of_exception(exc)
        if life is not None and life.seconds > 0:
            described = describe(exc, policy.cache_exceptions, policy.seen)
            try:
                encoded = None if described is None else self._backend.codec.encode(described)
            except CacheSerializationError:
                encoded = None
            if encoded is not None and type(encoded.open()) is not Stored:  # instances would be plain data then
                await self.fill(lease, _as_raised(encoded), life, lease.tags)
                return
        if policy.failure_backoff:
            self._failures.remember(lease.key, exc, policy.failure_backoff, policy.seen)


def opened(found: CachedValue, policy: LoadPolicy, counters: NamespaceCounters) -> Exception | tuple[Any] | None:
    """Return the value of an entry, in a tuple, or the cached exception that this reader chose; None: neither."""
    if not found.raised:
        return (found.value,)
    try:
        return interpret(plain(found.value), policy.cache_exceptions, policy.seen)
    except UndecodableError:
        counters.undecodable += 1
        return None


def value_of(found: CachedValue, policy: LoadPolicy, counters: NamespaceCounters) -> tuple[Any] | None:
    """Return the value of a fresh entry, in a tuple; None: it is not for this reader.

    :raises Exception: the cached one, where this reader chose it.
    """
    given = opened(found, policy, counters)
    if isinstance(given, Exception):
        raise given
    return given


def _as_raised(encoded: Encoded) -> Encoded:
    return Encoded(encoded.value, encoded.data, encoded.kept, encoded.copy, raised=True)


def awaitable(loading: Awaitable[T]) -> Awaitable[T]:
    """Return what a loader returned, if it can be awaited."""
    if not inspect.isawaitable(loading):
        raise CacheValueError(f"loader must be an async function; it returned {type(loading).__name__}")
    return loading
