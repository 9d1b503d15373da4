"""Leases as the backends know them.

In Redis a lease is a key beside the entry, holding a token. Whoever changes or removes the entry removes the lease
first; storing what was loaded is one script that compares the token. So a value that was loaded before an
invalidation cannot be stored after it, whichever processes load and invalidate, and whatever the order in which their
commands arrive.
"""

import asyncio
import math

from agent_service.core.errors import RedisOperationError
from agent_service.core.keys import glob_escape, internal_key, key_prefix
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.leases import Grant
from agent_service.infrastructure.cache.values import Encoded
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import LEASE_FILL, LEASE_RENEW

__all__ = ["LocalGrant", "Names", "RedisGrant"]


class LocalGrant(Grant):
    """For a backend that only this process changes: the :class:`LeaseBook` knows all there is to know."""

    def __init__(self, backend: Backend, key: str) -> None:
        self._backend = backend
        self._key = key
        self.is_first = True

    async def stands(self) -> bool:
        return True

    async def fill(self, encoded: Encoded, seconds: float) -> bool:
        await self._backend.store({self._key: encoded}, seconds)
        return True

    async def release(self, *, tell: bool = True) -> None:
        pass  # there is nothing to end


class RedisGrant(Grant):
    """A lease in Redis, shared with whoever else loads the same entry. It renews itself until it is released."""

    def __init__(
        self, client: RedisClient, entry: bytes, lease: bytes, token: bytes, seconds: float, *, is_first: bool
    ) -> None:
        self.is_first = is_first
        self._client = client
        self._entry = entry
        self._lease = lease
        self._token = token
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._renewal: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(seconds / 2, self._start_renewal)

    async def stands(self) -> bool:
        return await self._client.get(self._lease) == self._token

    async def fill(self, encoded: Encoded, seconds: float) -> bool:
        milliseconds = 0 if seconds == math.inf else max(1, math.ceil(seconds * 1000))
        keys = [self._entry, self._lease]
        stored = await self._client.run_script(LEASE_FILL, keys, [self._token, encoded.data or b"", milliseconds])
        self._ended = bool(stored)
        return self._ended

    async def release(self, *, tell: bool = True) -> None:
        filled, self._ended = self._ended, True
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        self._timer.cancel()
        if tell and self.is_first and not filled:  # who shares a lease leaves it to the others
            await self._client.run_script(LEASE_RENEW, [self._lease], [self._token, 0])

    def _start_renewal(self) -> None:
        self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            stood = await self._client.run_script(
                LEASE_RENEW, [self._lease], [self._token, round(self._seconds * 1000)]
            )
        except RedisOperationError:
            stood = True  # perhaps; the fill will tell
        if stood and not self._ended:
            self._timer = self._loop.call_later(self._seconds / 2, self._start_renewal)


class Names:
    """What the entries of one namespace, and their leases, are called in Redis."""

    def __init__(self, prefix: str, namespace: str) -> None:
        self.prefix = key_prefix(prefix, namespace)
        """What every entry's name begins with."""
        self._lease = internal_key(prefix, "lease", "")
        self.any_lease = glob_escape(self._lease.decode()).encode() + b"*"
        """A glob that matches the leases of all namespaces."""

    def lease(self, entry: bytes) -> bytes | None:
        """Name the lease of an entry, in the same slot of a cluster; None for the few names that allow none."""
        for name in (self._lease + entry, self._lease + b"{" + entry + b"}"):
            if _hashed(name) == _hashed(entry):
                return name
        return None

    def entry(self, lease: bytes) -> bytes | None:
        """Give the key, within this namespace, of the entry that a lease belongs to."""
        name = lease[len(self._lease) :]
        if name.startswith(b"{") and _hashed(name) == name[1:-1]:
            name = name[1:-1]
        return name[len(self.prefix) :] if name.startswith(self.prefix) else None


def _hashed(name: bytes) -> bytes:
    """What a cluster hashes of a name: its first ``{...}`` that is not empty, else all of it."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    return name[start + 1 : end] if start >= 0 and end > start + 1 else name
