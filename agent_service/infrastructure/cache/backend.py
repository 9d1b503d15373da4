"""What a cache is stored in, reduced to the few operations that differ."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from agent_service.core.globs import Globs
from agent_service.core.metrics import NamespaceCounters
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, Lease
from agent_service.infrastructure.cache.table import HitCounter, MemoryStore
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime, ValueCodec

__all__ = ["Backend", "Fill"]


class Fill(NamedTuple):
    """A value to store under a lease."""

    lease: Lease
    backend_lease: BackendLease
    encoded: Encoded


class Backend(ABC):
    """Entries of one namespace. Arguments were checked, values encoded; what an operation means is said by ICache.

    An operation happens wholly or, raising a :class:`RedisOperationError`, may not have happened. Entries carry their
    tags; passing the expected ones to a read only saves a round trip.

    An entry is fresh until its TTL is over, and then stale until it is gone (:class:`Lifetime`). An entry whose value
    is ``raised`` is not for every reader: reads return it with that flag, and to every other operation it is missing.
    A small backend is built step by step in ``docs/contributing/add-a-cache-backend.md``.
    """

    codec: ValueCodec
    counters: NamespaceCounters
    hot_table: tuple[MemoryStore, HitCounter] | None = None
    """The table in this process whose entries may be served without asking anyone, and where such hits count."""

    @abstractmethod
    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> CachedValue | None:
        """Read one entry, fresh or stale; count one hit, or one miss unless it is fresh.

        :param tags: tags that the entry is expected to have.
        :param with_expiry: whether ``CachedValue.expires_in`` is wanted.
        """

    @abstractmethod
    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        """Read entries and give those there are; count a hit or miss for each key."""

    @abstractmethod
    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        """Write entries. False when the backend had no room for one; what was under its key is gone."""

    @abstractmethod
    async def lease(
        self, key: str, tags: Sequence[str] = (), if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> BackendLease:
        """Return the right to store what is about to be loaded; every invalidation from now on breaks it.

        :param tags: what the entry will be tagged with.
        :param if_held: what to do when another process loads the entry already. "leave" gives a lease that stores
            nothing where there is one.
        :param more_tags: whether the loaded value may bring further tags.
        """

    async def lease_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[BackendLease]:
        """:meth:`lease` for many keys; shares the leases of other processes."""
        return [await self.lease(key, tags) for key in keys]

    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        """``BackendLease.fill`` for many leases that one :meth:`lease_many` gave."""
        return [await each.backend_lease.fill(each.lease, each.encoded, life, tags) for each in fills]

    @abstractmethod
    async def remove(self, keys: Sequence[str]) -> int:
        """Remove entries; how many fresh ones there were."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is a fresh entry."""

    @abstractmethod
    async def add(self, key: str, amount: int, seconds: float) -> int:
        """Add to a counter. ``seconds`` is for a new one; zero or less: a new one is not stored.

        :raises CacheValueError: when the entry is no integer, or the sum leaves 64 bits.
        """

    @abstractmethod
    async def expire(self, key: str, seconds: float) -> bool:
        """Let a fresh entry be fresh for ``seconds`` from now and then be gone; whether there was one."""

    @abstractmethod
    async def ttl(self, key: str) -> float | Never | None:
        """Seconds that an entry stays fresh, ``NEVER``, or None when there is no fresh entry."""

    @abstractmethod
    def scan(self, pattern: str) -> AsyncIterator[str]:
        """Iterate over the matching keys of fresh entries, each once."""

    @abstractmethod
    async def remove_matching(self, globs: Globs) -> int:
        """Remove the matching entries in one pass; how many fresh ones there were."""

    @abstractmethod
    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        """Invalidate every entry with one of the tags. Cost: the number of tags."""

    @abstractmethod
    async def clear(self) -> None:
        """Invalidate every entry."""
