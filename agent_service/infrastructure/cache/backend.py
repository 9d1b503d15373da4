"""What a cache is stored in, reduced to the few operations that differ."""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent_service.core.globs import Globs
from agent_service.core.metrics import NamespaceCounters
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.leases import Grant, Lease, Standing
from agent_service.infrastructure.cache.values import Encoded, ValueCodec

__all__ = ["Backend", "Fill", "Found", "Life"]


class Life(NamedTuple):
    """How long an entry lives: fresh for ``seconds``, then stale for ``stale_for`` seconds, then gone."""

    seconds: float
    """Above zero; infinity: no expiry."""
    stale_for: float = 0.0
    refresh_at: float | None = None
    """The fraction of ``seconds`` after which a reader has the entry refreshed; None: never."""

    @property
    def kept(self) -> float:
        """Seconds until it is gone."""
        return self.seconds + self.stale_for

    @property
    def is_plain(self) -> bool:
        """Whether the entry is gone as soon as it is stale, and nobody asks how much of its life is over."""
        return not self.stale_for and self.refresh_at is None


class Found(NamedTuple):
    """An entry that was read."""

    value: Any
    level: str
    """Where: "memory", "redis" or "l1"."""
    age: float | None = None
    """Seconds since it was stored; None where that is not kept."""
    left: float = math.inf
    """Seconds it stays fresh, as far as the entry itself says; zero or less: it is stale."""
    life: float | None = None
    """Seconds it was fresh for in all; None where that is not kept."""
    raised: bool = False
    """Whether the value describes what is not for every reader (:mod:`~agent_service.infrastructure.cache.raised`)."""
    tags: Sequence[str] = ()
    """The entry's tags, where it is in Redis."""
    expires_in: float | None = None
    """Seconds until it is gone, where that was asked for; infinity: never."""


class Fill(NamedTuple):
    """A value to store under a lease."""

    lease: Lease
    grant: Grant
    encoded: Encoded


class Backend(ABC):
    """Entries of one namespace. Arguments were checked, values encoded; what an operation means is said by ICache.

    An operation happens wholly or, raising a :class:`RedisOperationError`, may not have happened. Tags of an entry must
    be named to whoever reads it only to spare a round trip; entries carry theirs.
    """

    codec: ValueCodec
    counters: NamespaceCounters

    @abstractmethod
    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> Found | None:
        """Read one entry, fresh or stale; count one hit, or one miss unless it is fresh.

        :param tags: tags that the entry is expected to have.
        :param with_expiry: whether ``Found.expires_in`` is wanted.
        """

    @abstractmethod
    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, Found]:
        """Read entries and give those there are; count a hit or miss for each key."""

    @abstractmethod
    async def store(self, entries: Mapping[str, Encoded], life: Life, tags: Sequence[str] = ()) -> bool:
        """Write entries. False when the backend had no room for one; what was under its key is gone."""

    @abstractmethod
    async def grant(
        self, key: str, tags: Sequence[str] = (), standing: Standing = "share", *, more_tags: bool = False
    ) -> Grant:
        """Give the right to store what is about to be loaded; every invalidation from now on breaks it.

        :param tags: what the entry will be tagged with.
        :param standing: what to do when another process loads the entry already. "leave" gives a grant that stores
            nothing where there is one.
        :param more_tags: whether the loaded value may bring further tags.
        """

    async def grant_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[Grant]:
        """:meth:`grant` for many keys; shares the leases of other processes."""
        return [await self.grant(key, tags) for key in keys]

    async def fill_many(self, fills: Sequence[Fill], life: Life, tags: Sequence[str] = ()) -> list[bool]:
        """``Grant.fill`` for many grants that one :meth:`grant_many` gave."""
        return [await each.grant.fill(each.lease, each.encoded, life, tags) for each in fills]

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
