"""The cache in Redis: shared by processes, survives them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typing_extensions import TypeVar

from agent_service.core.codec import Serializer
from agent_service.core.errors import RedisDeniedError, RedisRefusedError, RedisUnreplicatedError
from agent_service.core.glob import Matches
from agent_service.core.globs import Globs
from agent_service.core.keys import former_internal_key
from agent_service.core.metrics import CacheMetrics, NamespaceCounters
from agent_service.core.milliseconds import lifetime_in_milliseconds
from agent_service.core.ttl import TTL, resolve_ttl
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.leases import LeaseBook
from agent_service.infrastructure.cache.redis.counters import CounterChange, RedisCounters
from agent_service.infrastructure.cache.redis.entries import (
    stamp,
    stamp_position,
)
from agent_service.infrastructure.cache.redis.leases import RedisLeases
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.cache.redis.reader import SCAN_COUNT, look
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import Encoded, Lifetime, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames, retried_without
from agent_service.infrastructure.redis.replication import Confirmation, confirmed
from agent_service.infrastructure.redis.scripts import ENTRY_PUT, EXPIRE
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisBackend", "RedisCache"]

T = TypeVar("T", default=Any)


class RedisBackend(RedisLeases):
    """Entries as Redis strings, valid while the tokens they carry stand."""

    def __init__(
        self,
        client: RedisClient,
        names: EntryNames,
        tokens: Tokens,
        codec: ValueCodec,
        counters: NamespaceCounters,
        *,
        lease_seconds: float,
    ) -> None:
        super().__init__(client, names, tokens, codec, counters, lease_seconds=lease_seconds)
        self._numbers = RedisCounters(client, names, tokens)

    # -- writing

    @retried_without
    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        """Write under the tokens that were the latest when last looked at, and look again in the same round trip."""
        names = (NAMESPACE, *tags)
        tokens = await self._guess(names, life)
        try:
            while True:
                writes = [self._set(self.names.physical(key), each, life, tokens) for key, each in entries.items()]
                current, *_ = await self.client.pipeline([self.tokens.take_command(names, life.milliseconds), *writes])
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
        lifetime = life.milliseconds
        leases = self.names.leases(physical)
        if leases:
            return (*ENTRY_PUT.call, 1 + len(leases), physical, *leases, data, lifetime)
        return ("SET", physical, data, *(("PX", lifetime) if lifetime else ()))

    async def add(self, key: str, amount: int, seconds: float) -> int:
        return await self.add_once(key, amount, seconds, None)

    @retried_without
    async def add_once(self, key: str, amount: int, seconds: float, change: CounterChange | None) -> int:
        """:meth:`add`; a change that is known to have been made is not made again."""
        return await self._numbers.add(key, amount, seconds, change)

    @retried_without
    async def expire(self, key: str, seconds: float) -> bool:
        physical = self.names.physical(key)
        held, reply = await self.client.pipeline([self.tokens.look(), look(physical)], wrong_types=True)
        (head,) = await self.live_heads([physical], [reply], self.tokens.own(held))
        if head is None:
            return False
        begins = reply if head.end <= len(reply) else await self.client.get(physical) or b""
        position = stamp_position(head)
        where = -1 if position is None else position
        lifetime = lifetime_in_milliseconds(seconds)
        await self.client.pipeline(
            [
                self.tokens.take_command(list(head.tags), lifetime),
                (*EXPIRE.call, 1, physical, begins[: head.end], where, stamp(seconds), lifetime),
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
            fresh = await self.are_live(values)
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
        heads = await self.live_heads(values, [reply], self.tokens.own(held))
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
                    removed += sum(await self.are_live(page))
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
        tokens, names = Tokens(client, prefix, namespace, former), EntryNames(prefix, namespace, former)
        backend = RedisBackend(client, names, tokens, codec, counters, lease_seconds=lease_seconds)
        seconds = resolve_ttl(default_ttl, math.inf, name="default_ttl")
        super().__init__(backend, namespace, default_ttl=seconds, leases=leases)
