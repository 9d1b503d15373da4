"""Reading entries in Redis: the value with its tokens, or the heads alone, and which of them are live.

Reads of values are impatient: where too much is asked of Redis at once, a late value is worth less than a miss in time.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from agent_service.core.envelope import Head, read_head
from agent_service.core.errors import RedisDeniedError, UndecodableError
from agent_service.core.globs import Globs
from agent_service.core.keys import glob_escape, logical_key
from agent_service.core.metrics import NamespaceCounters
from agent_service.core.ttl import NEVER, Never
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.redis.entries import (
    HEAD_BYTES,
    EntryFormat,
    freshness,
    is_live,
    is_valid,
    read_known_head,
)
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import CachedValue, ValueCodec
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import retried_without
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisReader", "look"]

SCAN_COUNT = 1000
"""Keys Redis looks at for one page of a scan; measured best between round trips and stalls of the server."""

_TURN = 0.005
"""Seconds in which names are compared with patterns before others have their turn."""


class RedisReader(Backend):
    """The part of the backend that reads the entries of one namespace, and counts hits and misses."""

    def __init__(
        self, client: RedisClient, names: EntryNames, tokens: Tokens, codec: ValueCodec, counters: NamespaceCounters
    ) -> None:
        self.client = client
        self.names = names
        self.tokens = tokens
        self.former = tokens.former
        self.codec = codec
        self.counters = counters
        self._prefix = names.prefix
        self._format = EntryFormat(codec)

    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> CachedValue | None:
        """Read an entry with the tokens that it is expected to carry, in one round trip."""
        if with_expiry:
            return await self._read_with_expiry(key, tuple(tags))
        own: Sequence[bytes]
        held: Sequence[bytes | None]
        own = self.tokens.keys((NAMESPACE, *tags)) if tags else self.tokens.own_keys[self.former.in_use]
        try:
            data, *held = await self.client.get_together((self._prefix + key.encode(), *own), patient=False)
        except RedisDeniedError:
            if len(own) == 1 + len(tags) or not await self.former.give_up(self.client):
                raise
            return await self.read(key, tags)
        if data is None:
            self.counters.misses += 1
            return None
        tags, held = tuple(tags), tuple(held)
        found = self._format.read_expected(data, tags, held)
        if found is not None:  # the short way of a hit
            self.counters.hits += 1
            return found
        return self._counted(await self._open(data, tags, held))

    def _counted(self, found: CachedValue | None) -> CachedValue | None:
        if found is None or found.left <= 0:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        return found

    @retried_without
    async def _read_with_expiry(self, key: str, tags: tuple[str, ...]) -> CachedValue | None:
        entry = self.names.physical(key)
        names = (NAMESPACE, *tags)
        remaining: Command = ("PTTL", entry)
        patience = self.client.timeout
        if self.client.is_cluster:
            data, milliseconds = await self.client.pipeline(
                [("GET", entry), remaining], wrong_types=True, patience=patience
            )
            held = await self.client.get_together(self.tokens.keys(names), patient=False)
        else:
            read: Command = ("MGET", entry, *self.tokens.keys(names))
            (data, *held), milliseconds = await self.client.pipeline([read, remaining], patience=patience)
        found = self._counted(None if data is None else await self._open(data, tags, held))
        if found is None or milliseconds == -2:
            return found
        return found._replace(expires_in=math.inf if milliseconds == -1 else milliseconds / 1000)

    @retried_without
    async def read_many(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        """Read entries, in one round trip."""
        tags = tuple(tags)
        own = self.tokens.keys((NAMESPACE, *tags))
        physical = [self.names.physical(key) for key in keys]
        replies = await self.client.get_many([*own, *physical], patience=self.client.timeout)
        held = tuple(replies[: len(own)])
        found: dict[str, CachedValue] = {}
        for key, data in zip(keys, replies[len(own) :], strict=True):
            if data is not None:
                each = self._format.read_expected(data, tags, held) or await self._open(data, tags, held)
                if each is not None:
                    found[key] = each
        hits = sum(each.left > 0 for each in found.values())  # when nothing can fail any more
        self.counters.hits += hits
        self.counters.misses += len(keys) - hits
        return found

    async def _open(self, data: bytes, tags: tuple[str, ...], held: Sequence[bytes | None]) -> CachedValue | None:
        """Read an entry, if its tokens stand; those of tags that nobody expected are read now."""
        try:
            head = read_head(data)
            names = (NAMESPACE, *tags)
            known = dict(zip(names, self.tokens.current(held, len(names)), strict=True))
            await self._learn([head], known)
            return self._format.read(data, head) if is_valid(head, known) else None
        except UndecodableError:
            self.counters.undecodable += 1
            return None

    async def _learn(self, heads: Iterable[Head | None], known: dict[str, bytes | None]) -> None:
        missing = {name for head in heads if head is not None for name in head.tags} - known.keys()
        if missing:
            known.update(await self.tokens.read(sorted(missing)))

    async def exists(self, key: str) -> bool:
        return (await self.are_live([self.names.physical(key)]))[0]

    @retried_without
    async def ttl(self, key: str) -> float | Never | None:
        physical = self.names.physical(key)
        held, reply, milliseconds = await self.client.pipeline(
            [self.tokens.look(), look(physical), ("PTTL", physical)], wrong_types=True
        )
        (head,) = await self.live_heads([physical], [reply], self.tokens.own(held))
        if head is None or milliseconds == -2:
            return None
        left = math.inf if milliseconds == -1 else milliseconds / 1000
        left = min(left, freshness(head)[1])
        return NEVER if left == math.inf else left

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for page in self._pages(pattern.encode()):
            fresh = await self.are_live(page)
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

    async def live_heads(self, keys: Sequence[bytes], replies: Sequence[Any], token: bytes | None) -> list[Head | None]:
        """Return the heads of the live entries; ``replies`` are those of :func:`look`."""
        heads = [read_known_head(reply if isinstance(reply, bytes) else None) for reply in replies]
        for place, (key, reply) in enumerate(zip(keys, replies, strict=True)):
            if heads[place] is None and isinstance(reply, bytes) and len(reply) == HEAD_BYTES:
                heads[place] = read_known_head(await self.client.get(key))
        known = {NAMESPACE: token}
        await self._learn(heads, known)
        return [head if head is not None and is_live(head, known) else None for head in heads]

    @retried_without
    async def are_live(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell which of these entries are live. Cost: two round trips, and the heads only."""
        if not keys:
            return []
        held, *replies = await self.client.pipeline([self.tokens.look(), *map(look, keys)], wrong_types=True)
        token = self.tokens.own(held)
        return [head is not None for head in await self.live_heads(keys, replies, token)]


def look(physical: bytes) -> Command:
    """Return the command that reads the head of an entry."""
    return ("GETRANGE", physical, 0, HEAD_BYTES - 1)


def _escaped(name: bytes) -> bytes:
    return glob_escape(name.decode("latin-1")).encode("latin-1")
