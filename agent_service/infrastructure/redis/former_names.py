"""Names that earlier releases gave to bookkeeping, used beside today's while a process of such a release may run.

A server may permit this user only today's names. The first refusal of an old name shows that; from then on today's
names are used alone.
"""

import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from agent_service.core.errors import RedisDeniedError
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["FormerNames", "retried_without"]

logger = logging.getLogger("agent_service.redis")

P = ParamSpec("P")
R = TypeVar("R")

_MOST_KNOWN = 1000


class FormerNames:
    """Whether old names are in use, by all that share this object: see :meth:`of`.

    :param probe: a key with such a name.
    :param pattern: of the keys with today's names.
    """

    _known: ClassVar[WeakKeyDictionary[RedisClient, dict[bytes, "FormerNames"]]] = WeakKeyDictionary()

    @classmethod
    def of(cls, client: RedisClient, probe: bytes, pattern: str) -> "FormerNames":
        """Return the object that all users of a client share, so that a refusal is met once."""
        known = cls._known.setdefault(client, {})
        found = known.setdefault(probe, cls(probe, pattern))
        if len(known) > _MOST_KNOWN:  # a client that is given a prefix for each of its users
            known.pop(next(iter(known)), None)
        return found

    def __init__(self, probe: bytes, pattern: str) -> None:
        self.in_use = True
        self._probe = probe
        self._pattern = pattern

    async def give_up(self, client: RedisClient) -> bool:
        """Ask whether the server refuses the old names as keys; if so, stop using them and return True."""
        try:
            await client.pipeline([("MGET", self._probe), ("UNLINK", self._probe)], wrong_types=True)
        except RedisDeniedError as exc:
            if exc.lacks != "key":
                return False
        else:
            return False
        if self.in_use:
            self.in_use = False
            logger.info(
                "Redis permits this user the keys %s but not those of earlier releases, which are not used: no process "
                "of an earlier release may work on the same keys",
                self._pattern,
            )
        return True


class _UsesFormerNames(Protocol):
    client: RedisClient
    former: FormerNames


User = TypeVar("User", bound=_UsesFormerNames)


def retried_without(
    operation: Callable[Concatenate[User, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[User, P], Coroutine[Any, Any, R]]:
    """Run an operation once more when it was refused for the old names that it used.

    A command is refused as a whole, before it changes anything. The operation must name its keys anew each time.
    """

    @wraps(operation)
    async def run(self: User, /, *args: P.args, **kwargs: P.kwargs) -> R:
        used = self.former.in_use
        try:
            return await operation(self, *args, **kwargs)
        except RedisDeniedError:
            if not (used and await self.former.give_up(self.client)):
                raise
        return await operation(self, *args, **kwargs)

    return run
