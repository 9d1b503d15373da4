"""Tokens: how many entries in Redis are invalidated in one step.

The namespace has a token, random bytes under a key of its own, and so has each tag. An entry carries the tokens that
its namespace and tags had when its load started, and is valid only while they are the current ones. To invalidate is to
delete a token: the next load makes another one, which no older entry carries. Nothing is compared by time, no list of
entries is kept, and a token that Redis evicts invalidates entries; it never brings one back.

A value that brings tags of its own cannot have their tokens from the time when its load started. For such loads each
namespace has one more token, the epoch, which every invalidation of tags deletes *first*. If it is still the same when
the tokens were read after the load, none of these tags was invalidated since the load started.

All tokens of a namespace share a slot of a cluster. They live at least twice as long as any entry that carries them;
those of entries that never expire do not expire either.

Beside old processes
--------------------
Earlier releases kept their bookkeeping beside the prefix (``{prefix}%token:...``), this one keeps it below
(``{prefix}:%token:...``); entries have not moved. During a rolling upgrade old and new processes share entries, and an
invalidation by either must reach the other. An old process reads, writes and deletes the old names only. So a new one
uses both names of everything, in the commands that it sends anyway:

* **Tokens.** Whoever invalidates deletes the old name; a new process deletes the new name in the same command. A
  token counts as its old name holds it, so an old process's invalidation is seen, and what one side stored, the other
  can read. Counters go on counting across both. When tokens are taken the new name is set to what the old one holds.
* **Leases.** A load holds both names with one token and is stored only if both still hold it. An old process breaks
  the old name, any new one breaks both.
* **Memory before Redis.** Both names are watched.

It costs more keys in the same commands, never another round trip.

A server that permits only ``{prefix}:*`` to the process (an access rule) refuses the old names. The process learns that
from the first refusal and works with the new names alone from then on; so no old process may run beside it, because
whatever that one invalidates by tag or namespace is written where this one may not read. Should the old names be
permitted again, processes that use both meet tokens that were changed under the new name alone. Those are told by
their length: a token of :data:`OWN_TOKEN_BYTES` was made by a process without the old names and voids what the old name
holds. To keep that mark, such a process replaces tokens in place of deleting them.

The end: the release after this one reads the new names only, and still deletes both; the one after it forgets the old
ones. A service that upgrades without a pause therefore takes each of these releases in turn.
"""

from collections.abc import Mapping, Sequence
from secrets import token_bytes
from typing import TypeAlias

from agent_service.core.keys import former_internal_key, internal_key, normalise_namespace
from agent_service.core.milliseconds import lifetime_in_milliseconds
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames
from agent_service.infrastructure.redis.replication import Confirmation
from agent_service.infrastructure.redis.scripts import TOKENS_TAKE
from agent_service.infrastructure.redis.transport.base import MAX_KEYS_PER_COMMAND, Command

__all__ = ["NAMESPACE", "TOKEN_KIND", "Tokens"]

SHARED_TOKEN_BYTES = 8
"""A token that is stored under both names. The script that takes tokens relies on this number."""
OWN_TOKEN_BYTES = 9
"""A token that was made under the new name alone."""

NAMESPACE = ""
"""The name of the namespace's own token among those of its tags."""
_EPOCH = "*"
TOKEN_KIND = b"%token:"
"""Part of the name of every token; no name has it further to the left."""

CurrentTokens: TypeAlias = Mapping[str, bytes | None]


class Tokens:
    """The tokens of one namespace."""

    def __init__(self, client: RedisClient, prefix: str, namespace: str, former: FormerNames) -> None:
        self._client = client
        self.former = former
        name = f"{{{_without_braces(normalise_namespace(namespace))}}}"
        self._stem = internal_key(prefix, "token", name)
        self._former_stem = former_internal_key(prefix, "token", name)
        self.own_keys = (self._stem,), (self._stem, self._former_stem)
        """What :meth:`keys` gives for the namespace's own token; the second where old names are in use."""

    def keys(self, names: Sequence[str], *, epoch: bool = False) -> list[bytes]:
        """Name tokens in Redis, to be read with :meth:`current`: by their new names, then by their old ones, if used.

        :param epoch: whether the epoch is wanted too, after the others.
        """
        ends = [b":" + name.encode() if name else b"" for name in names]
        if epoch:
            ends.append(_EPOCH.encode())
        keys = [self._stem + end for end in ends]
        if self.former.in_use:
            keys += [self._former_stem + end for end in ends]
        return keys

    @staticmethod
    def current(found: Sequence[bytes | None], count: int) -> tuple[bytes | None, ...]:
        """Return the ``count`` current tokens, given what the names of :meth:`keys` hold."""
        if len(found) == count:
            return tuple(found)
        if count == 1:
            new, old = found
            return (old if new is None or len(new) == SHARED_TOKEN_BYTES else None,)
        return tuple(
            [
                None if new is not None and len(new) != SHARED_TOKEN_BYTES else old
                for new, old in zip(found, found[count:], strict=False)
            ]
        )

    def look(self) -> Command:
        """Return the command that reads the namespace's own token, for :meth:`own`."""
        return ("MGET", *self.own_keys[self.former.in_use])

    def own(self, held: Sequence[bytes | None]) -> bytes | None:
        """Return the namespace's own token from the reply to :meth:`look`."""
        return self.current(held, 1)[0]

    @property
    def prefixes(self) -> tuple[bytes, bytes]:
        """What the names of all tokens of this namespace begin with, new names and old ones."""
        return self._stem, self._former_stem

    def name(self, key: bytes) -> str | None:
        """Return which token of this namespace a key names; None for the epoch, and for what names no tag."""
        rest = key[len(self._stem if key.startswith(self._stem) else self._former_stem) :]
        if not rest.startswith(b":"):
            return None if rest else NAMESPACE
        try:
            return rest[1:].decode()
        except UnicodeDecodeError:  # every tag has a form in UTF-8
            return None

    def take_command(self, names: Sequence[str], milliseconds: int, *, epoch: bool = False) -> Command:
        """Return the command that gives the tokens, and makes the missing ones.

        :param milliseconds: that entries with them will live; 0: for ever.
        :param epoch: whether the epoch is wanted too, after the others.
        """
        size = SHARED_TOKEN_BYTES if self.former.in_use else OWN_TOKEN_BYTES
        keys = self.keys(names, epoch=epoch)
        made = [token_bytes(size) for _ in range(len(names) + epoch)]
        return (*TOKENS_TAKE.call, len(keys), *keys, milliseconds, *made)

    async def take(self, names: Sequence[str], seconds: float) -> dict[str, bytes]:
        """Return the tokens, making the missing ones, for entries that live for ``seconds``."""
        (tokens,) = await self._client.pipeline([self.take_command(names, lifetime_in_milliseconds(seconds))])
        return dict(zip(names, tokens, strict=True))

    async def read(self, names: Sequence[str]) -> CurrentTokens:
        """Return the tokens as they are."""
        found = await self._client.get_together(self.keys(names))
        return dict(zip(names, self.current(found, len(names)), strict=True))

    async def invalidate(self, names: Sequence[str], confirmation: Confirmation | None = None) -> None:
        """Make every entry invalid that carries one of these tokens. Cost: the number of names."""
        await self._change([*self.keys((), epoch=True), *self.keys(names)], confirmation)

    async def clear(self, confirmation: Confirmation | None = None) -> None:
        """Make every entry of the namespace invalid."""
        await self._change(self.keys((NAMESPACE,)), confirmation)

    async def _change(self, keys: Sequence[bytes], confirmation: Confirmation | None) -> None:
        """Void tokens: delete them, or replace those that a deletion would bring back under their old names."""
        if self.former.in_use:
            await self._client.unlink(keys, confirmation=confirmation)
            return
        for start in range(0, len(keys), MAX_KEYS_PER_COMMAND):
            await self._client.pipeline(
                [
                    ("SET", key, token_bytes(OWN_TOKEN_BYTES), "XX", "KEEPTTL")
                    for key in keys[start : start + MAX_KEYS_PER_COMMAND]
                ],
                confirmation=confirmation,
            )


def _without_braces(text: str) -> str:
    return text.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
