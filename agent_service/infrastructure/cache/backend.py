"""What a cache is stored in, reduced to the few operations that differ."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agent_service.core.metrics import NamespaceCounters
from agent_service.core.ttl import Never
from agent_service.infrastructure.cache.interface import Lookup
from agent_service.infrastructure.cache.leases import Grant, Standing
from agent_service.infrastructure.cache.values import Encoded, ValueCodec

__all__ = ["Backend"]


class Backend(ABC):
    """Entries of one namespace. Arguments were checked, values encoded; what an operation means is said by ICache.

    ``seconds`` is a time to live above zero; infinity means no expiry. An operation happens wholly or, raising a
    :class:`RedisOperationError`, may not have happened.
    """

    codec: ValueCodec
    counters: NamespaceCounters

    @abstractmethod
    async def lookup(self, key: str) -> Lookup[Any]:
        """Read one entry; count one hit or miss."""

    @abstractmethod
    async def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read entries and give the hits; count a hit or miss for each key."""

    @abstractmethod
    async def store(self, entries: Mapping[str, Encoded], seconds: float) -> bool:
        """Write entries. False when the backend had no room for one; what was under its key is gone."""

    @abstractmethod
    async def grant(self, key: str, standing: Standing = "share") -> Grant:
        """Give the right to store what is about to be loaded; every change of the entry from now on breaks it.

        :param standing: what to do when another process loads the entry already. "leave" gives a grant that stores
            nothing where there is one.
        """

    @abstractmethod
    async def remove(self, keys: Sequence[str]) -> int:
        """Remove entries; how many live ones there were."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is a live entry."""

    @abstractmethod
    async def add(self, key: str, amount: int, seconds: float) -> int:
        """Add to a counter. ``seconds`` is for a new one; zero or less: a new one is not stored.

        :raises CacheValueError: when the entry is no integer, or the sum leaves 64 bits.
        """

    @abstractmethod
    async def expire(self, key: str, seconds: float) -> bool:
        """Change the time to live of an entry; whether there was one."""

    @abstractmethod
    async def ttl(self, key: str) -> float | Never | None:
        """Seconds left, ``NEVER``, or None when there is no entry."""

    @abstractmethod
    def scan(self, pattern: str) -> AsyncIterator[str]:
        """Iterate over the matching keys, each once."""

    @abstractmethod
    async def remove_matching(self, pattern: str) -> int:
        """Remove the matching entries; how many there were."""
