"""The cache in Redis: shared by processes, survives them."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from secrets import token_bytes
from typing import Any, TypeVar

from agent_service.core.codec import Serializer
from agent_service.core.envelope import Head, read_head
from agent_service.core.errors import RedisOperationError, RedisRefusedError, UndecodableError
from agent_service.core.glob import compile_glob
from agent_service.core.keys import glob_escape, logical_key
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.ttl import NEVER, TTL, Never, resolve_ttl
from agent_service.infrastructure.cache.backend import Backend, Found, Life
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.entries import (
    HEAD_BYTES,
    EntryFormat,
    freshness,
    is_live,
    is_valid,
    read_known_head,
    stamp,
    stamp_position,
)
from agent_service.infrastructure.cache.grants import RedisGrant
from agent_service.infrastructure.cache.leases import Grant, LeaseBook, Standing
from agent_service.infrastructure.cache.names import Names
from agent_service.infrastructure.cache.redis_counters import Change, RedisCounters
from agent_service.infrastructure.cache.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import Encoded, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.lane import Command
from agent_service.infrastructure.redis.scripts import ENTRY_PUT, EXPIRE, LEASE_RENEW, LEASE_TAKE

__all__ = ["RedisBackend", "RedisCache"]

T = TypeVar("T")

SCAN_COUNT = 1000
"""Keys Redis looks at for one page of a scan; measured best between round trips and stalls of the server."""


class RedisBackend(Backend):
    """Entries as Redis strings, valid while the tokens they carry stand."""

    def __init__(
        self,
        client: RedisClient,
        names: Names,
        tokens: Tokens,
        codec: ValueCodec,
        counters: NamespaceCounters,
        *,
        lease_seconds: float,
    ) -> None:
        self._client = client
        self._names = names
        self._prefix = names.prefix
        self._tokens = tokens
        self._own = tokens.namespace_key
        self._format = EntryFormat(codec)
        self._numbers = RedisCounters(client, names, tokens)
        self._lease_seconds = lease_seconds
        self._latest: bytes | None = None
        self.codec = codec
        self.counters = counters

    def physical(self, key: str) -> bytes:
        """Give the name of a key in Redis."""
        return self._prefix + key.encode()

    # -- reading

    async def read(self, key: str, tags: Sequence[str] = ()) -> Found | None:
        tags = tuple(tags)
        data, *tokens = await self._client.get_together(
            (self._prefix + key.encode(), *self._tokens.keys(tags))
            if tags
            else (self._prefix + key.encode(), self._own)
        )
        found = None
        if data is not None:
            found = self._open_expected(data, tags, tuple(tokens)) or await self._open(data, tags, tuple(tokens))
        if found is None or found.left <= 0:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        return found

    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, Found]:
        tags = tuple(tags)
        own = self._tokens.keys(tags)
        replies = await self._client.get_many([*own, *(self.physical(key) for key in keys)])
        tokens = tuple(replies[: len(own)])
        found: dict[str, Found] = {}
        for key, data in zip(keys, replies[len(own) :], strict=True):
            each = None
            if data is not None:
                each = self._open_expected(data, tags, tokens) or await self._open(data, tags, tokens)
            if each is not None:
                found[key] = each
            if each is None or each.left <= 0:
                self.counters.misses += 1
            else:
                self.counters.hits += 1
        return found

    def _open_expected(self, data: bytes, tags: tuple[str, ...], tokens: tuple[bytes | None, ...]) -> Found | None:
        """Read an entry with the tags that were expected: the short way of a hit. None: take the long way."""
        try:
            return self._format.read_expected(data, tags, tokens)
        except UndecodableError:
            return None

    async def _open(self, data: bytes, tags: tuple[str, ...], tokens: tuple[bytes | None, ...]) -> Found | None:
        """Read an entry, if its tokens stand; those of tags that nobody expected are read now."""
        try:
            head = read_head(data)
            known = dict(zip((NAMESPACE, *tags), tokens, strict=True))
            await self._learn([head], known)
            return self._format.read(data, head) if is_valid(head, known) else None
        except UndecodableError:
            self.counters.undecodable += 1
            return None

    async def _learn(self, heads: Iterable[Head | None], known: dict[str, bytes | None]) -> None:
        missing = {name for head in heads if head is not None for name in head.tags} - known.keys()
        if missing:
            known.update(await self._tokens.read(sorted(missing)))

    async def _heads(self, keys: Sequence[bytes], replies: Sequence[Any], token: bytes | None) -> list[Head | None]:
        """Give the heads of the live entries; ``replies`` are those of :func:`_look`."""
        heads = [read_known_head(reply if isinstance(reply, bytes) else None) for reply in replies]
        for place, (key, reply) in enumerate(zip(keys, replies, strict=True)):
            if heads[place] is None and isinstance(reply, bytes) and len(reply) == HEAD_BYTES:
                heads[place] = read_known_head(await self._client.get(key))
        known = {NAMESPACE: token}
        await self._learn(heads, known)
        return [head if head is not None and is_live(head, known) else None for head in heads]

    async def _fresh(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell which of these entries are live. Cost: two round trips, and the heads only."""
        if not keys:
            return []
        token, *replies = await self._client.pipeline([("GET", self._own), *map(_look, keys)], wrong_types=True)
        return [head is not None for head in await self._heads(keys, replies, token)]

    async def exists(self, key: str) -> bool:
        return (await self._fresh([self.physical(key)]))[0]

    async def ttl(self, key: str) -> float | Never | None:
        physical = self.physical(key)
        token, reply, milliseconds = await self._client.pipeline(
            [("GET", self._own), _look(physical), ("PTTL", physical)], wrong_types=True
        )
        (head,) = await self._heads([physical], [reply], token)
        if head is None or milliseconds == -2:
            return None
        left = math.inf if milliseconds == -1 else milliseconds / 1000
        left = min(left, freshness(head)[1])
        return NEVER if left == math.inf else left

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for page in self._pages(pattern):
            fresh = await self._fresh(page)
            for physical, is_fresh in zip(page, fresh, strict=True):
                key = logical_key(physical, self._prefix)
                if is_fresh and key is not None and key not in seen:
                    seen.add(key)
                    yield key

    def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        return self._client.scan(glob_escape(self._prefix.decode()).encode() + pattern.encode(), count=SCAN_COUNT)

    # -- writing

    async def store(self, entries: Mapping[str, Encoded], life: Life, tags: Sequence[str] = ()) -> bool:
        """Write under the tokens that were the latest when last looked at, and look again in the same round trip."""
        names = (NAMESPACE, *tags)
        tokens = await self._guess(names, life)
        try:
            while True:
                writes = [self._set(self.physical(key), each, life, tokens) for key, each in entries.items()]
                current, *_ = await self._client.pipeline([self._tokens.take_command(names, life.kept), *writes])
                latest = dict(zip(names, current, strict=True))
                self._latest = latest[NAMESPACE]
                if latest == tokens:
                    return True
                tokens = latest
        except RedisRefusedError:
            await self.remove(list(entries))  # what was there is out of date now; freeing memory is always allowed
            self.counters.errors += 1
            return False

    async def _guess(self, names: Sequence[str], life: Life) -> Mapping[str, bytes]:
        if len(names) == 1 and self._latest is not None:
            return {NAMESPACE: self._latest}
        return await self._tokens.take(names, life.kept)

    def _set(self, physical: bytes, encoded: Encoded, life: Life, tokens: Mapping[str, bytes]) -> Command:
        """Give the command that writes an entry and breaks its lease, in one step: none may be taken in between."""
        data = self._format.write(encoded, life, tokens)
        lifetime = 0 if life.kept == math.inf else milliseconds(life.kept)
        lease = self._names.lease(physical)
        if lease is not None:
            return ENTRY_PUT.command([physical, lease], [data, lifetime])
        return ("SET", physical, data, *(("PX", lifetime) if lifetime else ()))

    async def grant(
        self, key: str, tags: Sequence[str] = (), standing: Standing = "share", *, more_tags: bool = False
    ) -> Grant:
        physical = self.physical(key)
        lease = self._names.lease(physical)
        names = (NAMESPACE, *tags)
        mine = token_bytes(12)
        commands = [self._tokens.take_command(names, self._lease_seconds, epoch=more_tags)]
        if lease is not None:
            commands.append(LEASE_TAKE.command([lease], [mine, milliseconds(self._lease_seconds), standing]))
        try:
            taken, *standing_token = await self._client.pipeline(commands)
        except asyncio.CancelledError:
            if lease is not None:  # it may have been taken; nobody else can end it before its time
                await asyncio.shield(self._forgo(lease, mine))
            raise
        tokens = dict(zip(names, taken, strict=False))
        self._latest = tokens[NAMESPACE]
        return RedisGrant(
            self._client,
            self._tokens,
            physical,
            lease,
            token=standing_token[0] if lease is not None else mine,
            tokens=tokens,
            epoch=taken[-1] if more_tags else None,
            seconds=self._lease_seconds,
            is_first=lease is None or standing_token[0] == mine,
            write=self._format.write,
        )

    async def _forgo(self, lease: bytes, token: bytes) -> None:
        with suppress(RedisOperationError):
            await self._client.run_script(LEASE_RENEW, [lease], [token, 0])

    async def add(self, key: str, amount: int, seconds: float) -> int:
        return await self.add_once(key, amount, seconds, None)

    async def add_once(self, key: str, amount: int, seconds: float, change: Change | None) -> int:
        """:meth:`add`; a change that is known to have been made is not made again."""
        return await self._numbers.add(key, amount, seconds, change)

    async def expire(self, key: str, seconds: float) -> bool:
        physical = self.physical(key)
        token, reply = await self._client.pipeline([("GET", self._own), _look(physical)], wrong_types=True)
        (head,) = await self._heads([physical], [reply], token)
        if head is None:
            return False
        begins = reply if head.end <= len(reply) else await self._client.get(physical) or b""
        position = stamp_position(head)
        where = -1 if position is None else position
        lifetime = 0 if seconds == math.inf else milliseconds(seconds)
        await self._client.pipeline(
            [
                self._tokens.take_command(head.tags, seconds),
                EXPIRE.command([physical], [begins[: head.end], where, stamp(seconds), lifetime]),
            ]
        )
        return True

    # -- invalidating

    async def remove(self, keys: Sequence[str]) -> int:
        leases = self._leases(keys)
        values = [self.physical(key) for key in keys]
        if len(keys) > 1:  # leases first: a fill between the two must find its lease broken
            await self._client.unlink(leases)
            fresh = await self._fresh(values)
            await self._client.unlink(values)
            return sum(fresh)
        token, reply, *_ = await self._client.pipeline(
            [
                ("GET", self._own),
                _look(values[0]),
                *(("UNLINK", each) for each in (*leases, *values)),
            ],
            wrong_types=True,
        )
        return sum(head is not None for head in await self._heads(values, [reply], token))

    async def remove_matching(self, pattern: str) -> int:
        await self._break_leases(compile_glob(pattern))
        removed = 0
        async for page in self._pages(pattern):
            removed += sum(await self._fresh(page))
            await self._client.unlink(page)
        return removed

    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        await self._tokens.invalidate(tags)

    async def clear(self) -> None:
        await self._tokens.clear()

    def _leases(self, keys: Iterable[str]) -> list[bytes]:
        named = (self._names.lease(self.physical(key)) for key in keys)
        return [lease for lease in named if lease is not None]

    async def _break_leases(self, matches: Callable[[bytes], bool]) -> None:
        async for page in self._client.scan(self._names.any_lease, count=SCAN_COUNT):
            found = [(lease, self._names.entry(lease)) for lease in page]
            await self._client.unlink([lease for lease, key in found if key is not None and matches(key)])


class RedisCache(BaseCache[T]):
    """A cache in Redis. An outage raises :class:`RedisOperationError`; :func:`get_cache` puts a fallback around it.

    Values that another program put under a key of ours, and bytes that no version of the format explains, are misses.
    A write that Redis refuses for want of memory removes the old entry and returns False. What was cleared, or lost a
    tag, can be read no more, and its memory is free again when its time to live is over; of entries that never expire,
    when they are overwritten or removed by key or pattern.

    :param client: connections; not closed by this cache.
    :param prefix: first component of every physical key.
    :param lease_seconds: how long a load that died keeps its right to store; a load that runs renews it.
    :param compress_above: values of more bytes than this are compressed; None: never.
    """

    backend: RedisBackend

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
        tokens = Tokens(client, prefix, namespace)
        backend = RedisBackend(client, Names(prefix, namespace), tokens, codec, counters, lease_seconds=lease_seconds)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases)


def milliseconds(seconds: float) -> int:
    """Give whole milliseconds, at least one."""
    return max(1, math.ceil(seconds * 1000))


def _look(physical: bytes) -> tuple[bytes | str | int, ...]:
    return ("GETRANGE", physical, 0, HEAD_BYTES - 1)
