"""The protocol by which a cache never holds what the database no longer says.

Writers and readers of one key, in any number of processes, follow it:

* A writer *begins* at the fence before it writes to the database: the cached value is removed and every lease is
  broken. It *finishes* afterwards. Its value is cached only if no other writer was under way meanwhile, because it is
  unknown then whose value the database holds; otherwise the key stays out of the cache.
* A reader who misses takes a *lease* before it reads the database, and *fills* the cache under that lease. There is no
  lease while a writer is under way, and a writer who begins breaks it: a late fill is refused.

So a process that dies between the database and the cache leaves the key out of the cache. Between processes a writer
counts as under way for a limited time, which it *renews* while it writes. It still counts for that time after its
death, so that what it had asked of the database has come to its end before anybody caches the key again. The lease is
that of "Scaling Memcache at Facebook" (NSDI 2013).

The fences differ in who sees them: :mod:`.local` this process, :mod:`.redis` every process that shares the Redis,
:mod:`.cache` every process that shares any other cache. :mod:`.guard` handles what happens when a fence fails.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Final

from agent_service.context.interface import Document

__all__ = ["LEASE_SECONDS", "Fence", "Fenced"]

LEASE_SECONDS: Final = 10.0
"""How long a writer that dies counts as under way, unless told otherwise."""


class Fence(ABC):
    """The protocol over one cache. Keys are encoded (:func:`~agent_service.context.keys.encode_key`).

    Every method raises what the cache raises. Tokens are text. The token "" stands for no write: with it,
    :meth:`finish` only removes the keys from the cache and breaks their leases.
    """

    by_field: bool = False
    """Whether it stores each top-level entry of a document by itself."""

    @abstractmethod
    async def begin(self, keys: Collection[str]) -> str:
        """Remove the keys from the cache, break their leases, and return the token of a write that is under way."""

    @abstractmethod
    async def renew(self, token: str, keys: Collection[str]) -> str:
        """Say that a write is still under way; return the token that replaces its own."""

    @abstractmethod
    async def finish(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> None:
        """End a write: cache those keys' documents for ``ttl`` seconds if it was alone; remove the other keys."""

    @abstractmethod
    async def lease(self, keys: Collection[str]) -> str:
        """Return the token of a load that is under way."""

    @abstractmethod
    async def fill(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> int:
        """End a load of these keys: cache those documents whose lease stands, for ``ttl`` seconds; return how many."""


class Fenced(ABC):
    """A store that has a fence of its own, better than one that only this process sees."""

    @abstractmethod
    def fence(self, lease: float = LEASE_SECONDS) -> Fence:
        """Return the fence.

        :param lease: seconds that a writer or reader counts as under way, unless it is renewed.
        """
