"""Many keys, one load: each key has a flight and a lease of its own, and all of them wait for one call of the loader.

Invariants:

1. Each key that nobody is loading yet gets a flight (``core/singleflight.py``), and each flight a lease, before the
   loader is called. So a call for many keys and a call for one of them share their work, and an invalidation of one key
   keeps that key's value out and no other.
2. The flights of one call form a batch: the first that runs starts the one task that calls the loader, and the last
   that ends cancels it if it still runs.
3. The other flights of the batch are noted as waiting for the first, in whose context the loader runs: a loader that
   asks for one of its own keys gets an error instead of waiting for ever.
4. Leases are taken and values stored in a few round trips, however many they are.
5. A key that the loader leaves out is stored nowhere; a caller who waits for this key alone loads it alone.
"""

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_service.core.current_reads import CURRENT_READS
from agent_service.core.errors import CacheSerializationError, CacheValueError
from agent_service.core.singleflight import Breakable, SingleFlight
from agent_service.core.tracing import span
from agent_service.infrastructure.cache.backend import Backend, Fill
from agent_service.infrastructure.cache.leases import Lease
from agent_service.infrastructure.cache.loads.filling import awaitable
from agent_service.infrastructure.cache.loads.loading import Loading
from agent_service.infrastructure.cache.values import Encoded, Lifetime

__all__ = ["LoaderOfMany", "load_many"]

LoaderOfMany = Callable[[list[str]], Awaitable[Mapping[str, Any]]]


async def load_many(
    loading: Loading,
    backend: Backend,
    keys: Sequence[str],
    loader: LoaderOfMany,
    *,
    life: Lifetime,
    tags: Sequence[str],
) -> dict[str, Any]:
    """Load the keys, or join the loads that run; give the values there are."""
    batch = _Batch(backend, loader, life, tags, loading.span_attributes)

    async def load(lease: Breakable) -> Encoded | None:
        assert isinstance(lease, Lease)
        batch.begin()
        try:
            with loading.flights.waiting_for(batch.leader):
                return await batch.result(lease.key)
        finally:
            try:
                await batch.leave()
            finally:  # also when it is cancelled once more
                await loading.leases.end(lease)

    def enrol(key: str) -> Lease:
        lease = loading.leases.open(key, tags)
        batch.leases[key] = lease
        return lease

    waiting = [asyncio.ensure_future(loading.flights.run(key, load, functools.partial(enrol, key))) for key in keys]
    try:
        loaded = await asyncio.gather(*waiting)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return {key: each.open() for key, each in zip(keys, loaded, strict=True) if each is not None}


class _Batch:
    """One call of the loader, and the flights that wait for it."""

    def __init__(
        self,
        backend: Backend,
        loader: LoaderOfMany,
        life: Lifetime,
        tags: Sequence[str],
        span_attributes: Mapping[str, str],
    ) -> None:
        self._backend = backend
        self._span_attributes = span_attributes
        self._loader = loader
        self._life = life
        self._tags = tags
        self._task: asyncio.Task[dict[str, Encoded | CacheSerializationError]] | None = None
        self._left = 0
        self.leases: dict[str, Lease] = {}
        """By key. All flights that this batch starts are started before the first of them runs."""
        self.leader: object = None
        """The flight in whose context the loader runs."""

    def begin(self) -> None:
        """Start, when the first flight runs."""
        if self._task is None:
            self.leader = SingleFlight.current()
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.copy_context())

    async def result(self, key: str) -> Encoded | None:
        """Return the value of a key; None: the loader left it out.

        :raises CacheSerializationError: when it cannot be written down.
        """
        assert self._task is not None
        found = (await asyncio.shield(self._task)).get(key)
        if isinstance(found, CacheSerializationError):
            raise found
        return found

    async def leave(self) -> None:
        """Say that a flight ended; with the last one the loader is cancelled, if it still runs."""
        self._left += 1
        if self._left == len(self.leases) and self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> dict[str, Encoded | CacheSerializationError]:
        with span("cache load", {**self._span_attributes, "agent_service.cache.keys": len(self.leases)}):
            return await self._load_and_fill()

    async def _load_and_fill(self) -> dict[str, Encoded | CacheSerializationError]:
        await self._take_leases()
        counters = self._backend.counters
        counters.loads += 1
        try:
            CURRENT_READS.set(True)  # the task has a context of its own
            values = _checked(await awaitable(self._loader(list(self.leases))))
        except Exception:
            counters.load_errors += 1
            raise
        encoded = {key: self._encode(values[key]) for key in self.leases if key in values}
        if self._life.seconds > 0:
            await self._fill(encoded)
        return encoded

    async def _take_leases(self) -> None:
        taken = await self._backend.lease_many(list(self.leases), self._tags)
        for lease, backend_lease in zip(self.leases.values(), taken, strict=True):
            lease.backend_lease = backend_lease
            if lease.broken:  # perhaps its flight has ended, and nobody else would release it
                await backend_lease.release()

    def _encode(self, value: Any) -> Encoded | CacheSerializationError:
        try:
            return self._backend.codec.encode(value, annotated=False)
        except CacheSerializationError as exc:
            return exc

    async def _fill(self, encoded: Mapping[str, Encoded | CacheSerializationError]) -> None:
        """Store what was loaded, save where an invalidation came first."""
        counters = self._backend.counters
        fills = []
        for key, each in encoded.items():
            lease = self.leases[key]
            if isinstance(each, CacheSerializationError):
                counters.errors += 1
            elif lease.broken or lease.backend_lease is None:
                counters.fill_rejected += 1
            else:
                fills.append(Fill(lease, lease.backend_lease, each))
        stored = sum(await self._backend.fill_many(fills, self._life, self._tags))
        counters.sets += stored
        counters.fill_rejected += len(fills) - stored


def _checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise CacheValueError(f"loader must return a mapping of keys to values, not {type(values).__name__}")
    return values
