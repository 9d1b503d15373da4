"""Leases in Redis: taken, renewed, and ended with the value that is stored under them.

A lease is a key beside the entry (two while old processes may run), holding a token.

1. Whoever changes or removes the entry removes the lease first. Storing what was loaded is one script that compares the
   token. So a value that was loaded before an invalidation cannot be stored after it, whichever processes load and
   invalidate, and whatever the order in which their commands arrive.
2. Invalidations of a tag or of the whole namespace touch no lease: the entry is stored with the tokens from before its
   load, which are not the current ones any more.
3. Loads of several processes share a lease: all hold its token. It renews itself while a load runs, and expires when
   the process died.
4. A value that brings tags of its own has no tokens from before its load; the epoch tells whether any tag was
   invalidated since (``tokens.py``).
5. A lease that was taken under names of earlier releases is void once these are given up: nobody may break it then.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from secrets import token_bytes
from typing import NamedTuple

from agent_service.core.errors import RedisDeniedError, RedisOperationError
from agent_service.core.metrics import NamespaceCounters
from agent_service.core.milliseconds import to_milliseconds
from agent_service.infrastructure.cache.backend import Fill
from agent_service.infrastructure.cache.leases import BackendLease, IfHeld, Lease
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.cache.redis.reader import RedisReader
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import Encoded, Lifetime, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import retried_without
from agent_service.infrastructure.redis.scripts import LEASE_FILL, LEASE_RENEW, LEASE_TAKE
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisLease", "RedisLeases"]

BATCH = 500
"""Leases taken, or values stored under them, in one round trip."""


class RedisLease(BackendLease):
    """A lease in Redis, shared with whoever else loads the same entry. It renews itself until it is released.

    :param lease: the names of the lease; none for an entry that has no lease, which only tokens protect.
    :param tokens: those of the namespace and the entry's tags, from before the load.
    :param epoch: the epoch from before the load, for a value that may bring tags of its own.
    :param write: makes the bytes of the entry.
    """

    def __init__(
        self,
        client: RedisClient,
        known: Tokens,
        entry: bytes,
        lease: Sequence[bytes],
        *,
        token: bytes,
        tokens: Mapping[str, bytes],
        epoch: bytes | None,
        seconds: float,
        is_first: bool,
        write: Callable[[Encoded, Lifetime, Mapping[str, bytes]], bytes],
    ) -> None:
        self.is_first = is_first
        self._client = client
        self._known = known
        self._entry = entry
        self._lease = lease
        self._token = token
        self._tokens = dict(tokens)
        self._epoch = epoch
        self._seconds = seconds
        self._write = write
        self._uses_former = known.former.in_use
        self._ended = False
        self._released = False
        self._renewal: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if lease:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(seconds / 2, self._start_renewal)

    @property
    def void(self) -> bool:
        """Whether it was taken under names that were given up since, so that nobody may break it by them any more."""
        return self._uses_former and not self._known.former.in_use

    async def holds(self) -> bool:
        if self.void:
            return False
        expected = list(self._tokens.values())
        if self._epoch is not None:
            expected.append(self._epoch)
        keys = self._known.keys(list(self._tokens), epoch=self._epoch is not None)
        found = await self._client.get_together([*self._lease, *keys])
        count = len(self._lease)
        current = self._known.current(found[count:], len(expected))
        return all(each == self._token for each in found[:count]) and list(current) == expected

    async def fill(
        self,
        lease: Lease,  # noqa: ARG002 - whoever broke it broke the one in Redis, or will
        encoded: Encoded,
        life: Lifetime,
        tags: Sequence[str],
    ) -> bool:
        if self.void or (not self._tokens.keys() >= set(tags) and not await self._take(tags, life)):
            return False
        store = self.store_command(encoded, life)
        check = self._known.take_command(list(self._tokens), life.milliseconds)
        try:
            tokens, stored = await self._client.pipeline([check, store])
        except RedisDeniedError:
            if not (self._uses_former and await self._known.former.give_up(self._client)):
                raise
            return False
        if not self.note_stored(stored, tokens):
            return False
        await self.release(tell=False)
        return True

    def note_stored(self, stored: object, tokens: Sequence[bytes]) -> bool:
        """Take note of the reply to :meth:`store_command`; whether what was stored can be read.

        :param tokens: those of the namespace and the tags, in order, as they were found just before.
        """
        self._ended = bool(stored)
        return self._ended and list(tokens) == list(self._tokens.values())

    async def _take(self, tags: Sequence[str], life: Lifetime) -> bool:
        """Take the tokens of tags that the value brought; False when one of them may have been invalidated."""
        new = [tag for tag in tags if tag not in self._tokens]
        (found,) = await self._client.pipeline([self._known.take_command(new, life.milliseconds, epoch=True)])
        *taken, epoch = found
        self._tokens.update(zip(new, taken, strict=True))
        return bool(epoch == self._epoch)

    def store_command(self, encoded: Encoded, life: Lifetime) -> Command:
        """Return the command that stores the value under the lease, and ends it."""
        lifetime = life.milliseconds
        data = self._write(encoded, life, self._tokens)
        if self._lease:
            return (*LEASE_FILL.call, 1 + len(self._lease), self._entry, *self._lease, self._token, data, lifetime)
        return ("SET", self._entry, data, *(("PX", lifetime) if lifetime else ()))

    async def release(self, *, tell: bool = True) -> None:
        if self._released:
            return
        self._released = True
        filled, self._ended = self._ended, True
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        if self._timer is not None:
            self._timer.cancel()
        # Who shares a lease leaves it to others.
        if tell and self.is_first and not filled and self._lease and not self.void:
            await self._client.run_script(LEASE_RENEW, self._lease, [self._token, 0])

    def _start_renewal(self) -> None:
        self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        if self.void:
            return
        try:
            stood = await self._client.run_script(
                LEASE_RENEW, self._lease, [self._token, to_milliseconds(self._seconds)]
            )
        except RedisOperationError:
            stood = True  # perhaps; the fill will tell
        if stood and not self._ended:
            self._timer = self._loop.call_later(self._seconds / 2, self._start_renewal)


class RedisLeases(RedisReader):
    """The part of the backend that takes leases and stores what was loaded under them."""

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
        super().__init__(client, names, tokens, codec, counters)
        self._lease_seconds = lease_seconds
        self._lease_milliseconds = to_milliseconds(lease_seconds)
        self._latest: bytes | None = None
        """The token of the namespace when it was last looked at."""

    async def lease(
        self, key: str, tags: Sequence[str] = (), if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> BackendLease:
        (lease,) = await self._take((key,), tags, if_held, more_tags=more_tags)
        return lease

    async def lease_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> list[BackendLease]:
        starts = range(0, len(keys), BATCH)
        return [lease for start in starts for lease in await self._take(keys[start : start + BATCH], tags)]

    async def _take(
        self, keys: Sequence[str], tags: Sequence[str], if_held: IfHeld = "share", *, more_tags: bool = False
    ) -> list[BackendLease]:
        """Take the tokens, and with them a lease for each key, in one round trip."""
        uses_former = self.former.in_use
        mine: list[_Mine] = []
        for key in keys:
            entry = self._prefix + key.encode()
            mine.append(_Mine(entry, self.names.leases(entry), token_bytes(12)))
        commands = [self.tokens.take_command((NAMESPACE, *tags), self._lease_milliseconds, epoch=more_tags)]
        for _, names, token in mine:
            if names:
                commands.append((*LEASE_TAKE.call, len(names), *names, token, self._lease_milliseconds, if_held))
        try:
            taken, *replies = await self.client.pipeline(commands, patience=self._lease_seconds)
        except asyncio.CancelledError:
            await asyncio.shield(self._forgo(mine))
            raise
        except RedisDeniedError:
            if not (uses_former and await self.former.give_up(self.client)):
                raise
            return await self._take(keys, tags, if_held, more_tags=more_tags)
        tokens = dict(zip((NAMESPACE, *tags), taken, strict=False))
        self._latest = tokens[NAMESPACE]
        holders = iter(replies)
        leases: list[BackendLease] = []
        for entry, names, token in mine:
            holder = next(holders) if names else token
            leases.append(
                RedisLease(
                    self.client,
                    self.tokens,
                    entry,
                    names,
                    token=holder,
                    tokens=tokens,
                    epoch=taken[-1] if more_tags else None,
                    seconds=self._lease_seconds,
                    is_first=holder == token,
                    write=self._format.write,
                )
            )
        return leases

    @retried_without
    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        if any(isinstance(each.backend_lease, RedisLease) and each.backend_lease.void for each in fills):
            return [False] * len(fills)
        stored: list[bool] = []
        for start in range(0, len(fills), BATCH):
            batch = [
                (lease, encoded) for _, lease, encoded in fills[start : start + BATCH] if isinstance(lease, RedisLease)
            ]
            check = self.tokens.take_command((NAMESPACE, *tags), life.milliseconds)
            tokens, *replies = await self.client.pipeline(
                [check, *(lease.store_command(each, life) for lease, each in batch)]
            )
            stored += [lease.note_stored(reply, tokens) for (lease, _), reply in zip(batch, replies, strict=True)]
        return stored

    async def _forgo(self, mine: Sequence["_Mine"]) -> None:
        """End leases that may have been taken, and that nobody else can end before their time."""
        with suppress(RedisOperationError):
            await self.client.pipeline(
                [(*LEASE_RENEW.call, len(each.names), *each.names, each.token, 0) for each in mine if each.names]
            )


class _Mine(NamedTuple):
    """A lease that is asked for."""

    entry: bytes
    names: tuple[bytes, ...]
    """Empty for an entry that has no lease."""
    token: bytes
    """What its names hold, unless another process holds the lease."""
