"""The names that earlier releases give to tokens and leases, used beside today's until no old process runs.

Earlier releases kept their bookkeeping beside the prefix (``{prefix}%token:...``), this one keeps it below
(``{prefix}:%token:...``); entries have not moved. During a rolling upgrade old and new processes share entries, and an
invalidation by either must reach the other. An old process reads, writes and deletes the old names only. So a new one
uses both names of everything, in the commands that it sends anyway:

* **Tokens.** Whoever invalidates deletes the old name; a new process deletes the new name in the same command. A
  token stands as its old name holds it, so an old process's invalidation is seen, and what one side stored, the other
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

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from agent_service.core.errors import RedisDeniedError
from agent_service.core.keys import former_internal_key
from agent_service.core.logging import logger
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["OWN_TOKEN_BYTES", "SHARED_TOKEN_BYTES", "FormerNames", "retried_without"]

P = ParamSpec("P")
R = TypeVar("R")

SHARED_TOKEN_BYTES = 8
"""A token that stands under both names. The script that takes tokens relies on this number."""
OWN_TOKEN_BYTES = 9
"""A token that was made under the new name alone."""


class FormerNames:
    """Whether the old names of one prefix are in use. Shared by whatever names keys of one namespace."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self.in_use = True
        self._client = client
        self._prefix = prefix
        self._probe = former_internal_key(prefix, "probe", "")

    async def give_up(self) -> bool:
        """Ask whether the server refuses the old names as keys; if so, use them no more and return True."""
        try:
            await self._client.pipeline([("MGET", self._probe), ("UNLINK", self._probe)])
        except RedisDeniedError as exc:
            if exc.lacks != "key":
                return False
        else:
            return False
        if self.in_use:
            self.in_use = False
            logger.info(
                "Redis permits only %s:* to this user: the names of earlier releases are not used, so no process of an "
                "earlier release may share this cache",
                self._prefix,
            )
        return True


class _UsesFormerNames(Protocol):
    former: FormerNames


Self = TypeVar("Self", bound=_UsesFormerNames)


def retried_without(
    operation: Callable[Concatenate[Self, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Self, P], Coroutine[Any, Any, R]]:
    """Run an operation once more when it was refused for the old names that it used.

    Commands are refused whole, before they change anything. The operation must name its keys anew each time it runs.
    """

    @wraps(operation)
    async def run(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        used = self.former.in_use
        try:
            return await operation(self, *args, **kwargs)
        except RedisDeniedError:
            if not (used and await self.former.give_up()):
                raise
        return await operation(self, *args, **kwargs)

    return run
