"""The cache in Redis: shared by processes, survives them."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from secrets import token_bytes
from typing import Any, TypeVar

from agent_service.core.codec import Serializer
from agent_service.core.errors import RedisDeniedError, RedisOperationError, RedisRefusedError, RedisUnreplicatedError
from agent_service.core.glob import Matches
from agent_service.core.globs import Globs
from agent_service.core.keys import former_internal_key, glob_escape, logical_key
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.ttl import NEVER, TTL, Never, resolve_ttl
from agent_service.infrastructure.cache.backend import Backend, Fill
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, LeaseBook
from agent_service.infrastructure.cache.redis.counters import Change, RedisCounters
from agent_service.infrastructure.cache.redis.entries import (
    EntryFormat,
    freshness,
    stamp,
    stamp_position,
)
from agent_service.infrastructure.cache.redis.leases import RedisLease
from agent_service.infrastructure.cache.redis.names import Names
from agent_service.infrastructure.cache.redis.reader import RedisReader, look
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames, retried_without
from agent_service.infrastructure.redis.replication import Confirmation, confirmed
from agent_service.infrastructure.redis.scripts import ENTRY_PUT, EXPIRE, LEASE_RENEW, LEASE_TAKE
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisBackend", "RedisCache"]

T = TypeVar("T")

SCAN_COUNT = 1000
"""Keys Redis looks at for one page of a scan; measured best between round trips and stalls of the server."""


_TURN = 0.005
"""Seconds in which names are compared with patterns before others have their turn."""

BATCH = 500
"""Leases taken, or values stored under them, in one round trip."""


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
        self.client = client
        self.names = names
        self._prefix = names.prefix
        self.tokens = tokens
        self.former = tokens.former
        self._format = EntryFormat(codec)
        self._reader = RedisReader(client, names, tokens, self._format, counters)
        self._numbers = RedisCounters(client, names, tokens)
        self._lease_seconds = lease_seconds
        self._latest: bytes | None = None
        self.codec = codec
        self.counters = counters

    # -- reading

    def read(
        self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False
    ) -> Coroutine[Any, Any, CachedValue | None]:
        read = self._reader.read_with_expiry if with_expiry else self._reader.read
        return read(key, tuple(tags))

    @retried_without
    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        return await self._reader.read_many(keys, tuple(tags))

    async def exists(self, key: str) -> bool:
        return (await self._are_live([self.names.physical(key)]))[0]

    @retried_without
    async def _are_live(self, physical: Sequence[bytes]) -> list[bool]:
        return await self._reader.are_live(physical)

    @retried_without
    async def ttl(self, key: str) -> float | Never | None:
        physical = self.names.physical(key)
        held, reply, milliseconds = await self.client.pipeline(
            [self.tokens.look(), look(physical), ("PTTL", physical)], wrong_types=True
        )
        (head,) = await self._reader.live_heads([physical], [reply], self.tokens.own(held))
        if head is None or milliseconds == -2:
            return None
        left = math.inf if milliseconds == -1 else milliseconds / 1000
        left = min(left, freshness(head)[1])
        return NEVER if left == math.inf else left

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for page in self._pages(pattern.encode()):
            fresh = await self._are_live(page)
            for physical, is_fresh in zip(page, fresh, strict=True):
                key = logical_key(physical, self._prefix)
                if is_fresh and key is not None and key not in seen:
                    seen.add(key)
                    yield key

    def _pages(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        return self.client.scan(_escaped(self._prefix) + pattern, count=SCAN_COUNT)

    async def _matching_pages(self, globs: Globs) -> AsyncIterator[list[bytes]]:
        """Iterate over the names of the entries that match: what several patterns have in common Redis looks for."""
        if len(globs.patterns) == 1:
            async for page in self._pages(next(iter(globs.patterns)).encode()):
                yield page
            return
        start = len(self._prefix)
        async for page in self._pages(_escaped(globs.prefix) + b"*"):
            yield await self._chosen(page, lambda entry: globs.matches(entry[start:]))

    @staticmethod
    async def _chosen(page: Sequence[bytes], chosen: Callable[[bytes], bool]) -> list[bytes]:
        """Choose names; others have their turns meanwhile."""
        found: list[bytes] = []
        until = time.monotonic() + _TURN
        for name in page:
            if chosen(name):
                found.append(name)
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + _TURN
        return found

    # -- writing

    @retried_without
    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        """Write under the tokens that were the latest when last looked at, and look again in the same round trip."""
        names = (NAMESPACE, *tags)
        tokens = await self._guess(names, life)
        try:
            while True:
                writes = [self._set(self.names.physical(key), each, life, tokens) for key, each in entries.items()]
                current, *_ = await self.client.pipeline([self.tokens.take_command(names, life.kept), *writes])
                latest = dict(zip(names, current, strict=True))
                self._latest = latest[NAMESPACE]
                if latest == tokens:
                    return True
                tokens = latest
        except RedisRefusedError:
            self.counters.errors += 1
            try:
                await self.remove(list(entries))  # what was there is out of date now; freeing memory is always allowed
            except RedisUnreplicatedError as exc:
                raise RedisUnreplicatedError(str(exc), result=False) from exc
            return False

    async def _guess(self, names: Sequence[str], life: Lifetime) -> Mapping[str, bytes]:
        if len(names) == 1 and self._latest is not None:
            return {NAMESPACE: self._latest}
        return await self.tokens.take(names, life.kept)

    def _set(self, physical: bytes, encoded: Encoded, life: Lifetime, tokens: Mapping[str, bytes]) -> Command:
        """Return the command that writes an entry and breaks its lease, in one step: none may be taken in between."""
        data = self._format.write(encoded, life, tokens)
        lifetime = 0 if life.kept == math.inf else milliseconds(life.kept)
        leases = self.names.leases(physical)
        if leases:
            return ENTRY_PUT.command([physical, *leases], [data, lifetime])
        return ("SET", physical, data, *(("PX", lifetime) if lifetime else ()))

    async def lease(
        self, key: str, tags: Sequence[str] = (), if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> BackendLease:
        (lease,) = await self._leased((key,), tags, if_held, more_tags=more_tags)
        return lease

    async def lease_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[BackendLease]:
        starts = range(0, len(keys), BATCH)
        return [lease for start in starts for lease in await self._leased(keys[start : start + BATCH], tags)]

    @retried_without
    async def _leased(
        self, keys: Sequence[str], tags: Sequence[str], if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> list[BackendLease]:
        """Take the tokens, and with them a lease for each key, in one round trip."""
        names = (NAMESPACE, *tags)
        entries = [self.names.physical(key) for key in keys]
        leases = [self.names.leases(entry) for entry in entries]
        mine = [token_bytes(12) for _ in keys]
        lifetime = milliseconds(self._lease_seconds)
        mine_by_lease = {lease: token for lease, token in zip(leases, mine, strict=True) if lease}
        takes = [LEASE_TAKE.command(lease, [token, lifetime, if_held]) for lease, token in mine_by_lease.items()]
        take_tokens = self.tokens.take_command(names, self._lease_seconds, epoch=more_tags)
        try:
            taken, *replies = await self.client.pipeline([take_tokens, *takes], patience=self._lease_seconds)
        except asyncio.CancelledError:
            await asyncio.shield(self._forgo(mine_by_lease))
            raise
        tokens = dict(zip(names, taken, strict=False))
        self._latest = tokens[NAMESPACE]
        held_tokens = iter(replies)
        leased: list[BackendLease] = []
        for entry, lease, token in zip(entries, leases, mine, strict=True):
            held = next(held_tokens) if lease else token
            leased.append(
                RedisLease(
                    self.client,
                    self.tokens,
                    entry,
                    lease,
                    token=held,
                    tokens=tokens,
                    epoch=taken[-1] if more_tags else None,
                    seconds=self._lease_seconds,
                    is_first=held == token,
                    write=self._format.write,
                )
            )
        return leased

    @retried_without
    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        if any(isinstance(each.backend_lease, RedisLease) and each.backend_lease.void for each in fills):
            return [False] * len(fills)
        stored: list[bool] = []
        for start in range(0, len(fills), BATCH):
            batch = [
                (lease, encoded) for _, lease, encoded in fills[start : start + BATCH] if isinstance(lease, RedisLease)
            ]
            check = self.tokens.take_command((NAMESPACE, *tags), life.kept)
            tokens, *replies = await self.client.pipeline(
                [check, *(lease.store_command(each, life) for lease, each in batch)]
            )
            stored += [lease.note_stored(reply, tokens) for (lease, _), reply in zip(batch, replies, strict=True)]
        return stored

    async def _forgo(self, tokens: Mapping[tuple[bytes, ...], bytes]) -> None:
        """End leases that may have been taken, and that nobody else can end before their time."""
        with suppress(RedisOperationError):
            await self.client.pipeline([LEASE_RENEW.command(lease, [token, 0]) for lease, token in tokens.items()])

    async def add(self, key: str, amount: int, seconds: float) -> int:
        return await self.add_once(key, amount, seconds, None)

    @retried_without
    async def add_once(self, key: str, amount: int, seconds: float, change: Change | None) -> int:
        """:meth:`add`; a change that is known to have been made is not made again."""
        return await self._numbers.add(key, amount, seconds, change)

    @retried_without
    async def expire(self, key: str, seconds: float) -> bool:
        physical = self.names.physical(key)
        held, reply = await self.client.pipeline([self.tokens.look(), look(physical)], wrong_types=True)
        (head,) = await self._reader.live_heads([physical], [reply], self.tokens.own(held))
        if head is None:
            return False
        begins = reply if head.end <= len(reply) else await self.client.get(physical) or b""
        position = stamp_position(head)
        where = -1 if position is None else position
        lifetime = 0 if seconds == math.inf else milliseconds(seconds)
        await self.client.pipeline(
            [
                self.tokens.take_command(list(head.tags), seconds),
                EXPIRE.command([physical], [begins[: head.end], where, stamp(seconds), lifetime]),
            ]
        )
        return True

    # -- invalidating

    @retried_without
    async def remove(self, keys: Sequence[str]) -> int:
        confirmation = self._confirmation()
        leases = self._leases(keys)
        values = [self.names.physical(key) for key in keys]
        if len(keys) > 1:  # leases first: a fill between the two must find its lease broken
            await self.client.unlink(leases)
            fresh = await self._reader.are_live(values)
            await self.client.unlink(values, confirmation=confirmation)
            return confirmed(confirmation, sum(fresh))
        held, reply, *_ = await self.client.pipeline(
            [
                self.tokens.look(),
                look(values[0]),
                *(("UNLINK", each) for each in (*leases, *values)),
            ],
            wrong_types=True,
            confirmation=confirmation,
        )
        heads = await self._reader.live_heads(values, [reply], self.tokens.own(held))
        return confirmed(confirmation, sum(head is not None for head in heads))

    def _confirmation(self) -> Confirmation | None:
        """Return what an invalidation asks of replicas, which is nothing where nobody wants it."""
        asked = self.client.replication
        return None if asked is None else Confirmation(asked, self.names.confirmed)

    @retried_without
    async def remove_matching(self, globs: Globs) -> int:
        removed = 0
        confirmation = self._confirmation()
        try:
            await self._break_leases(globs.matches)
            async for page in self._matching_pages(globs):
                if page:
                    removed += sum(await self._reader.are_live(page))
                    await self.client.unlink(page, confirmation=confirmation)
            if confirmation is not None and confirmation.fewest is None:  # found nothing: others removed it just before
                await self.client.pipeline([self.tokens.look()], confirmation=confirmation)
        except RedisDeniedError as exc:
            if not self.does_without(exc):
                raise
            await self.tokens.clear(confirmation)
        return confirmed(confirmation, removed)

    def does_without(self, exc: RedisDeniedError) -> bool:
        """Whether the server denies only the listing of keys, which nothing depends on; the loss is logged once."""
        return exc.command == "SCAN" and exc.lacks == "command" and self.client.substitutes.lose(exc.command)

    @retried_without
    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        confirmation = self._confirmation()
        await self.tokens.invalidate(tags, confirmation)
        confirmed(confirmation, None)

    @retried_without
    async def clear(self) -> None:
        confirmation = self._confirmation()
        await self.tokens.clear(confirmation)
        confirmed(confirmation, None)

    def _leases(self, keys: Iterable[str]) -> list[bytes]:
        return [lease for key in keys for lease in self.names.leases(self.names.physical(key))]

    async def _break_leases(self, matches: Matches) -> None:
        def is_meant(lease: bytes) -> bool:
            key = self.names.entry(lease)
            return key is not None and matches(key)

        async for page in self.client.scan(self.names.any_lease, count=SCAN_COUNT):
            await self.client.unlink(await self._chosen(page, is_meant))


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
        former = FormerNames.of(client, former_internal_key(prefix, "probe", ""), f"{prefix}:*")
        tokens, names = Tokens(client, prefix, namespace, former), Names(prefix, namespace, former)
        backend = RedisBackend(client, names, tokens, codec, counters, lease_seconds=lease_seconds)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases)


def _escaped(name: bytes) -> bytes:
    return glob_escape(name.decode("latin-1")).encode("latin-1")


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one."""
    return max(1, math.ceil(seconds * 1000))
