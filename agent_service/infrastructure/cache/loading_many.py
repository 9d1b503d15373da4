"""Many keys, one load: each key has a flight and a lease of its own, and all of them wait for one call of the loader.

The loader is called when every key has its lease, with those keys that nobody was loading yet. So a call for many keys
and a call for one of them share their work, and an invalidation of one key keeps that key's value out and no other.
"""

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_service.core.errors import CacheValueError
from agent_service.core.singleflight import Fence, SingleFlight
from agent_service.infrastructure.cache.backend import Life
from agent_service.infrastructure.cache.leases import Lease
from agent_service.infrastructure.cache.loading import Loading, awaitable
from agent_service.infrastructure.cache.values import Encoded, ValueCodec

__all__ = ["LoaderOfMany", "load_many"]

LoaderOfMany = Callable[[list[str]], Awaitable[Mapping[str, Any]]]


async def load_many(
    loading: Loading, codec: ValueCodec, keys: Sequence[str], loader: LoaderOfMany, *, life: Life, tags: Sequence[str]
) -> dict[str, Any]:
    """Load the keys, or join the loads that run; give the values there are."""
    batch = _Batch(loader)

    async def load(fence: Fence) -> Encoded | None:
        assert isinstance(fence, Lease)
        try:
            return await _load_one(fence, loading, codec, batch, life)
        finally:
            batch.leave()
            await loading.give_back(fence)

    def enrol(key: str) -> Lease:
        batch.enrol(key)
        return loading.leases.open(key, tags)

    waiting = [asyncio.ensure_future(loading.flights.run(key, load, functools.partial(enrol, key))) for key in keys]
    try:
        loaded = await asyncio.gather(*waiting)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return {key: each.open() for key, each in zip(keys, loaded, strict=True) if each is not None}


async def _load_one(lease: Lease, loading: Loading, codec: ValueCodec, batch: "_Batch", life: Life) -> Encoded | None:
    """Run the flight of one key. None: the loader knows no value for it."""
    batch.led_by_first()
    try:
        lease.grant = await loading.grant(lease)
    finally:
        batch.attend()
    with loading.flights.led_by(batch.leader):
        values = await batch.values()
    if lease.key not in values:
        return None
    encoded = codec.encode(values[lease.key])
    if life.seconds > 0:
        await loading.fill(lease, encoded, life, lease.tags)
    return encoded


class _Batch:
    """One call of the loader, and the flights that wait for it."""

    def __init__(self, loader: LoaderOfMany) -> None:
        self._loader = loader
        self._keys: list[str] = []
        self._attended = 0
        self._left = 0
        self._started = asyncio.Event()
        self._task: asyncio.Task[Mapping[str, Any]]
        self._context: contextvars.Context
        self.leader: object = None
        """The flight in whose name the loader runs: who waits for it there would wait for itself."""

    def enrol(self, key: str) -> None:
        """Add a key to load. All are added before the first flight begins."""
        self._keys.append(key)

    def led_by_first(self) -> None:
        """Note the flight that calls this as the leader, if it is the first."""
        if self.leader is None:
            self.leader = SingleFlight.current()
            self._context = contextvars.copy_context()

    def attend(self) -> None:
        """Say that a key has its lease, or will have none; with the last one the loader starts."""
        self._attended += 1
        if self._attended == len(self._keys):
            self._task = asyncio.get_running_loop().create_task(self._load(), context=self._context)
            self._started.set()

    async def _load(self) -> Mapping[str, Any]:
        values = await awaitable(self._loader(list(self._keys)))
        if not isinstance(values, Mapping):
            raise CacheValueError(f"loader must return a mapping of keys to values, not {type(values).__name__}")
        return values

    async def values(self) -> Mapping[str, Any]:
        """Give what the loader gave."""
        await self._started.wait()
        return await asyncio.shield(self._task)

    def leave(self) -> None:
        """Say that a flight ended; with the last one the loader is cancelled, if it still runs."""
        self._left += 1
        if self._left == len(self._keys) and self._started.is_set():
            self._task.cancel()
