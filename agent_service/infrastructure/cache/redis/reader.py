"""Reading entries in Redis: the value with its tokens, or the heads alone, and which of them are live.

Reads of values are impatient: where too much is asked of Redis at once, a late value is worth less than a miss in time.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from agent_service.core.envelope import Head, read_head
from agent_service.core.errors import RedisDeniedError, UndecodableError
from agent_service.core.metrics import NamespaceCounters
from agent_service.infrastructure.cache.redis.entries import HEAD_BYTES, EntryFormat, is_live, is_valid, read_known_head
from agent_service.infrastructure.cache.redis.names import Names
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, Tokens
from agent_service.infrastructure.cache.values import CachedValue
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import retried_without
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["RedisReader", "look"]


class RedisReader:
    """Reads the entries of one namespace, and counts hits and misses."""

    def __init__(
        self, client: RedisClient, names: Names, tokens: Tokens, entries: EntryFormat, counters: NamespaceCounters
    ) -> None:
        self.client = client
        self._names = names
        self._prefix = names.prefix
        self._tokens = tokens
        self.former = tokens.former
        self._format = entries
        self._counters = counters

    async def read(self, key: str, tags: tuple[str, ...]) -> CachedValue | None:
        """Read an entry with the tokens that it is expected to carry, in one round trip."""
        entry = self._prefix + key.encode()
        shared = self.former.in_use
        own = self._tokens.keys((NAMESPACE, *tags)) if tags else self._tokens.own_keys
        try:
            data, *found = await self.client.get_together((entry, *own), patient=False)
        except RedisDeniedError:
            if not (shared and await self.former.give_up(self.client)):
                raise
            return await self.read(key, tags)
        tokens = self._tokens.current(found, 1 + len(tags))
        if data is None:
            return self._counted(None)
        return self._counted(self._open_expected(data, tags, tokens) or await self._open(data, tags, tokens))

    def _counted(self, found: CachedValue | None) -> CachedValue | None:
        if found is None or found.left <= 0:
            self._counters.misses += 1
        else:
            self._counters.hits += 1
        return found

    @retried_without
    async def read_with_expiry(self, key: str, tags: tuple[str, ...]) -> CachedValue | None:
        """:meth:`read`, and how long the entry has to live."""
        entry = self._names.physical(key)
        names = (NAMESPACE, *tags)
        remaining: Command = ("PTTL", entry)
        patience = self.client.timeout
        if self.client.is_cluster:
            data, milliseconds = await self.client.pipeline(
                [("GET", entry), remaining], wrong_types=True, patience=patience
            )
            held = await self.client.get_together(self._tokens.keys(names), patient=False)
        else:
            read: Command = ("MGET", entry, *self._tokens.keys(names))
            (data, *held), milliseconds = await self.client.pipeline([read, remaining], patience=patience)
        tokens = self._tokens.current(held, len(names))
        found = self._counted(None if data is None else await self._open(data, tags, tokens))
        if found is None or milliseconds == -2:
            return found
        return found._replace(expires_in=math.inf if milliseconds == -1 else milliseconds / 1000)

    async def read_many(self, keys: Sequence[str], tags: tuple[str, ...]) -> dict[str, CachedValue]:
        """Read entries, in one round trip."""
        names = (NAMESPACE, *tags)
        own = self._tokens.keys(names)
        physical = [self._names.physical(key) for key in keys]
        replies = await self.client.get_many([*own, *physical], patience=self.client.timeout)
        tokens = self._tokens.current(replies[: len(own)], len(names))
        found: dict[str, CachedValue] = {}
        for key, data in zip(keys, replies[len(own) :], strict=True):
            each = None
            if data is not None:
                each = self._open_expected(data, tags, tokens) or await self._open(data, tags, tokens)
            self._counted(each)
            if each is not None:
                found[key] = each
        return found

    def _open_expected(
        self, data: bytes, tags: tuple[str, ...], tokens: tuple[bytes | None, ...]
    ) -> CachedValue | None:
        """Read an entry with the tags that were expected: the short way of a hit. None: take the long way."""
        try:
            return self._format.read_expected(data, tags, tokens)
        except UndecodableError:
            return None

    async def _open(self, data: bytes, tags: tuple[str, ...], tokens: tuple[bytes | None, ...]) -> CachedValue | None:
        """Read an entry, if its tokens stand; those of tags that nobody expected are read now."""
        try:
            head = read_head(data)
            known = dict(zip((NAMESPACE, *tags), tokens, strict=True))
            await self._learn([head], known)
            return self._format.read(data, head) if is_valid(head, known) else None
        except UndecodableError:
            self._counters.undecodable += 1
            return None

    async def _learn(self, heads: Iterable[Head | None], known: dict[str, bytes | None]) -> None:
        missing = {name for head in heads if head is not None for name in head.tags} - known.keys()
        if missing:
            known.update(await self._tokens.read(sorted(missing)))

    async def live_heads(self, keys: Sequence[bytes], replies: Sequence[Any], token: bytes | None) -> list[Head | None]:
        """Return the heads of the live entries; ``replies`` are those of :func:`look`."""
        heads = [read_known_head(reply if isinstance(reply, bytes) else None) for reply in replies]
        for place, (key, reply) in enumerate(zip(keys, replies, strict=True)):
            if heads[place] is None and isinstance(reply, bytes) and len(reply) == HEAD_BYTES:
                heads[place] = read_known_head(await self.client.get(key))
        known = {NAMESPACE: token}
        await self._learn(heads, known)
        return [head if head is not None and is_live(head, known) else None for head in heads]

    async def are_live(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell which of these entries are live. Cost: two round trips, and the heads only."""
        if not keys:
            return []
        held, *replies = await self.client.pipeline([self._tokens.look(), *map(look, keys)], wrong_types=True)
        token = self._tokens.own(held)
        return [head is not None for head in await self.live_heads(keys, replies, token)]


def look(physical: bytes) -> Command:
    """Return the command that reads the head of an entry."""
    return ("GETRANGE", physical, 0, HEAD_BYTES - 1)
