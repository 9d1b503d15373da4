"""Leases as the backends know them.

In Redis a lease is a key beside the entry (two while old processes may run), holding a token. Whoever changes or
removes the entry removes the lease first; storing what was loaded is one script that compares the token. So a value
that was loaded before an invalidation cannot be stored after it, whichever processes load and invalidate, and whatever
the order in which their commands arrive. Invalidations of a tag or of the whole namespace touch no lease: the entry is
stored with the tokens from before its load, and those stand no more.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

from agent_service.core.errors import RedisDeniedError, RedisOperationError
from agent_service.infrastructure.cache.leases import BackendLease, Lease
from agent_service.infrastructure.cache.redis.tokens import Tokens
from agent_service.infrastructure.cache.values import Encoded, Lifetime
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import LEASE_FILL, LEASE_RENEW
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisLease"]


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
        check = self._known.take_command(list(self._tokens), life.kept)
        try:
            tokens, stored = await self._client.pipeline([check, self.store_command(encoded, life)])
        except RedisDeniedError:
            if not (self._uses_former and await self._known.former.give_up(self._client)):
                raise
            return False
        return self.note_stored(stored, tokens)

    def note_stored(self, stored: object, tokens: Sequence[bytes]) -> bool:
        """Take note of the reply to :meth:`store_command`; whether what was stored can be read.

        :param tokens: those of the namespace and the tags, in order, as they were found just before.
        """
        self._ended = bool(stored)
        return self._ended and list(tokens) == list(self._tokens.values())

    async def _take(self, tags: Sequence[str], life: Lifetime) -> bool:
        """Take the tokens of tags that the value brought; False when one of them may have been invalidated."""
        new = [tag for tag in tags if tag not in self._tokens]
        (found,) = await self._client.pipeline([self._known.take_command(new, life.kept, epoch=True)])
        *taken, epoch = found
        self._tokens.update(zip(new, taken, strict=True))
        return bool(epoch == self._epoch)

    def store_command(self, encoded: Encoded, life: Lifetime) -> Command:
        """Return the command that stores the value under the lease, and ends it."""
        data = self._write(encoded, life, self._tokens)
        milliseconds = 0 if life.kept == math.inf else max(1, math.ceil(life.kept * 1000))
        if self._lease:
            return LEASE_FILL.command([self._entry, *self._lease], [self._token, data, milliseconds])
        return ("SET", self._entry, data, *(("PX", milliseconds) if milliseconds else ()))

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
            stood = await self._client.run_script(LEASE_RENEW, self._lease, [self._token, round(self._seconds * 1000)])
        except RedisOperationError:
            stood = True  # perhaps; the fill will tell
        if stood and not self._ended:
            self._timer = self._loop.call_later(self._seconds / 2, self._start_renewal)
