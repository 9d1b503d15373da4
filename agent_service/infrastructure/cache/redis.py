"""The cache in Redis: shared by processes, survives them."""

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from secrets import token_bytes
from typing import Any, TypeVar, cast

from agent_service.core.codec import Serializer
from agent_service.core.errors import CacheValueError, RedisCommandError, RedisRefusedError, UndecodableError
from agent_service.core.glob import compile_glob
from agent_service.core.keys import glob_escape, logical_key
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.ttl import NEVER, TTL, Never, resolve_ttl
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.grants import LocalGrant, Names, RedisGrant
from agent_service.infrastructure.cache.interface import MISS, Hit, Lookup
from agent_service.infrastructure.cache.leases import Grant, LeaseBook, Standing
from agent_service.infrastructure.cache.values import Encoded, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import INCREMENT, LEASE_TAKE

__all__ = ["RedisCache"]

T = TypeVar("T")

SCAN_COUNT = 1000
"""Keys Redis looks at for one page of a scan; measured best between round trips and stalls of the server."""


class RedisBackend(Backend):
    """Entries as Redis strings."""

    def __init__(
        self,
        client: RedisClient,
        names: Names,
        codec: ValueCodec,
        counters: NamespaceCounters,
        *,
        lease_seconds: float,
    ) -> None:
        self._client = client
        self._names = names
        self._prefix = names.prefix
        self._lease_seconds = lease_seconds
        self.codec = codec
        self.counters = counters

    def physical(self, key: str) -> bytes:
        """Give the name of a key in Redis."""
        return self._prefix + key.encode()

    async def lookup(self, key: str) -> Lookup[Any]:
        return self._decode(await self._client.get(self._prefix + key.encode()))

    async def lookup_many(self, keys: Sequence[str]) -> dict[str, Any]:
        replies = await self._client.get_many([self.physical(key) for key in keys])
        found = ((key, self._decode(data)) for key, data in zip(keys, replies, strict=True))
        return {key: each.value for key, each in found if each is not MISS}

    def _decode(self, data: bytes | None) -> Lookup[Any]:
        if data is not None:
            try:
                value = self.codec.decode(data)
            except UndecodableError:
                self.counters.undecodable += 1
            else:
                self.counters.hits += 1
                return Hit(value)
        self.counters.misses += 1
        return MISS

    async def store(self, entries: Mapping[str, Encoded], seconds: float) -> bool:
        expiry = () if seconds == math.inf else ("PX", _milliseconds(seconds))
        writes = [("SET", self.physical(key), each.data or b"", *expiry) for key, each in entries.items()]
        leases = self._leases(entries)
        if len(writes) > 1:
            await self._client.unlink(leases)
            leases = []
        try:
            await self._client.pipeline([*(("UNLINK", lease) for lease in leases), *writes])
        except RedisRefusedError:
            await self.remove(list(entries))  # what was there is out of date now; freeing memory is always allowed
            self.counters.errors += 1
            return False
        return True

    async def grant(self, key: str, standing: Standing = "share") -> Grant:
        physical = self.physical(key)
        lease = self._names.lease(physical)
        if lease is None:
            return LocalGrant(self, key)
        milliseconds = _milliseconds(self._lease_seconds)
        mine = token_bytes(12)
        token = await self._client.run_script(LEASE_TAKE, [lease], [mine, milliseconds, standing])
        return RedisGrant(self._client, physical, lease, token, self._lease_seconds, is_first=token == mine)

    async def remove(self, keys: Sequence[str]) -> int:
        leases = self._leases(keys)
        values = [self.physical(key) for key in keys]
        if len(keys) > 1:  # leases first: a fill between the two must find its lease broken
            await self._client.unlink(leases)
            return await self._client.unlink(values)
        *_, removed = await self._client.pipeline([("UNLINK", each) for each in (*leases, *values)])
        return int(removed)

    def _leases(self, keys: Iterable[str]) -> list[bytes]:
        named = (self._names.lease(self.physical(key)) for key in keys)
        return [lease for lease in named if lease is not None]

    async def exists(self, key: str) -> bool:
        return bool(await self._client.execute("EXISTS", self.physical(key)))

    async def add(self, key: str, amount: int, seconds: float) -> int:
        milliseconds = 0 if seconds == math.inf else _milliseconds(seconds) if seconds > 0 else -1
        try:
            keys = [self.physical(key), *self._leases((key,))]
            return int(await self._client.run_script(INCREMENT, keys, [amount, milliseconds]))
        except RedisCommandError as exc:
            if not _is_no_counter(exc):
                raise
            raise CacheValueError(
                f"the entry of key {key!r:.80} is no integer within 64 bits, or adding {amount} would leave them; "
                "it is unchanged"
            ) from exc

    async def expire(self, key: str, seconds: float) -> bool:
        physical = self.physical(key)
        if seconds == math.inf:
            existed, _ = await self._client.pipeline([("EXISTS", physical), ("PERSIST", physical)])
            return bool(existed)
        return bool(await self._client.execute("PEXPIRE", physical, _milliseconds(seconds)))

    async def ttl(self, key: str) -> float | Never | None:
        milliseconds = cast("int", await self._client.execute("PTTL", self.physical(key)))
        if milliseconds == -1:
            return NEVER
        return None if milliseconds < 0 else milliseconds / 1000

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for page in self._pages(pattern):
            for physical in page:
                key = logical_key(physical, self._prefix)
                if key is not None and key not in seen:
                    seen.add(key)
                    yield key

    async def remove_matching(self, pattern: str) -> int:
        await self._break_leases(compile_glob(pattern))
        removed = 0
        async for page in self._pages(pattern):
            removed += await self._client.unlink(page)
        return removed

    async def _break_leases(self, matches: Callable[[bytes], bool]) -> None:
        async for page in self._client.scan(self._names.any_lease, count=SCAN_COUNT):
            found = [(lease, self._names.entry(lease)) for lease in page]
            await self._client.unlink([lease for lease, key in found if key is not None and matches(key)])

    def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        return self._client.scan(glob_escape(self._prefix.decode()).encode() + pattern.encode(), count=SCAN_COUNT)


class RedisCache(BaseCache[T]):
    """A cache in Redis. An outage raises :class:`RedisOperationError`; :func:`get_cache` puts a fallback around it.

    Values that another program put under a key of ours, and bytes that no version of the format explains, are misses.
    A write that Redis refuses for want of memory removes the old entry and returns False.

    :param client: connections; not closed by this cache.
    :param prefix: first component of every physical key.
    :param lease_seconds: how long a load that died keeps its right to store; a load that runs renews it.
    :param compress_above: values of more bytes than this are compressed; None: never.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "agent_service",
        namespace: str = "",
        default_ttl: TTL = 300,
        serializer: Serializer | None = None,
        compress_above: int | None = None,
        lease_seconds: float = 10.0,
        metrics: CacheMetrics | None = None,
        leases: LeaseBook | None = None,
    ) -> None:
        codec = ValueCodec(serializer, compress_above=compress_above)
        counters = (metrics or CacheMetrics()).namespace(namespace)
        backend = RedisBackend(client, Names(prefix, namespace), codec, counters, lease_seconds=lease_seconds)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _is_no_counter(exc: RedisCommandError) -> bool:
    return any(sign in str(exc) for sign in ("not an integer", "overflow", "WRONGTYPE"))
