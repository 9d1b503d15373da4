"""Tokens: how many entries in Redis are invalidated in one step.

The namespace has a token, random bytes under a key of its own, and so has each tag. An entry carries the tokens that
its namespace and tags had when its load started, and is valid only while they are the current ones. To invalidate is to
delete a token: the next load makes another one, which no older entry carries. Nothing is compared by time, no list of
entries is kept, and a token that Redis evicts invalidates instead of resurrecting.

A value that brings tags of its own cannot have their tokens from the time when its load started. For such loads each
namespace has one more token, the epoch, which every invalidation of tags deletes *first*. If it still stands when the
tokens were read after the load, none of these tags was invalidated since the load started.

All tokens of a namespace share a slot of a cluster. They live at least twice as long as any entry that carries them;
those of entries that never expire do not expire either.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_bytes
from typing import TypeAlias

from agent_service.core.keys import internal_key, normalise_namespace
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.lane import Command
from agent_service.infrastructure.redis.scripts import TOKENS_TAKE

__all__ = ["NAMESPACE", "TOKEN_KIND", "Tokens"]

TOKEN_BYTES = 8
NAMESPACE = ""
"""The name of the namespace's own token among those of its tags."""
_EPOCH = "*"
TOKEN_KIND = b"%token:"
"""What follows the prefix in the name of every token."""

Standing: TypeAlias = Mapping[str, bytes | None]


class Tokens:
    """The tokens of one namespace."""

    def __init__(self, client: RedisClient, prefix: str, namespace: str) -> None:
        self._client = client
        self._stem = internal_key(prefix, "token", f"{{{_without_braces(normalise_namespace(namespace))}}}")
        self.namespace_key = self.key(NAMESPACE)
        self.epoch_key = self._stem + _EPOCH.encode()

    def key(self, name: str) -> bytes:
        """Name a token in Redis."""
        return self._stem + (b":" + name.encode() if name else b"")

    def keys(self, tags: Sequence[str]) -> list[bytes]:
        """Name the tokens of the namespace and these tags."""
        return [self.namespace_key, *[self._stem + b":" + tag.encode() for tag in tags]]

    @property
    def prefix(self) -> bytes:
        """What the names of all tokens of this namespace begin with."""
        return self._stem

    def name(self, key: bytes) -> str | None:
        """Undo :meth:`key`; None for the epoch."""
        rest = key[len(self._stem) :]
        return rest[1:].decode() if rest.startswith(b":") else None if rest else NAMESPACE

    def take_command(self, names: Iterable[str], seconds: float, *, epoch: bool = False) -> Command:
        """Give the command that gives the tokens, and makes the missing ones, for entries that live for ``seconds``.

        :param epoch: whether the epoch is wanted too, after the others.
        """
        keys = [self.key(name) for name in names]
        if epoch:
            keys.append(self.epoch_key)
        milliseconds = 0 if seconds == math.inf else max(1, math.ceil(seconds * 1000))
        return TOKENS_TAKE.command(keys, [milliseconds, *(token_bytes(TOKEN_BYTES) for _ in keys)])

    async def take(self, names: Sequence[str], seconds: float) -> dict[str, bytes]:
        """Give the tokens, making the missing ones."""
        (tokens,) = await self._client.pipeline([self.take_command(names, seconds)])
        return dict(zip(names, tokens, strict=True))

    async def read(self, names: Sequence[str]) -> Standing:
        """Give the tokens as they are."""
        found = await self._client.get_together([self.key(name) for name in names])
        return dict(zip(names, found, strict=True))

    async def invalidate(self, names: Sequence[str]) -> None:
        """Make every entry invalid that carries one of these tokens. Cost: the number of names."""
        await self._client.unlink([self.epoch_key, *map(self.key, names)])

    async def clear(self) -> None:
        """Make every entry of the namespace invalid."""
        await self._client.unlink([self.namespace_key])


def _without_braces(text: str) -> str:
    return text.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
