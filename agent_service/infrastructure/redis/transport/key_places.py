"""Where the keys of a command are, for redis-py's cluster client.

It asks the server for the table of all commands whenever it connects, which is half a megabyte of Python objects to
make. The commands that this package sends are few, and the places of their keys never change.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster

__all__ = ["KeyPlaces"]

_FIRST: Final = frozenset({
    "expire", "get", "getrange", "hdel", "hget", "hgetall", "hincrby", "hset", "incrby", "llen", "lrange", "ltrim",
    "persist", "pexpire", "pttl", "rpush", "set", "setrange", "zadd", "zremrangebyscore", "zscan",
})  # fmt: skip
"""The key is the first argument."""
_ALL: Final = frozenset({"del", "exists", "mget", "unlink"})
"""Each argument is a key."""
_PAIRS: Final = frozenset({"mset"})
"""Keys and values alternate."""


class KeyPlaces:
    """Takes the place of ``commands_parser``. Only a command that is not known here has the server asked for its table.

    :param client: its own parser knows the other commands.
    """

    def __init__(self, client: RedisCluster) -> None:
        self._others = client.commands_parser
        self._node: ClusterNode | None = None

    async def initialize(self, node: ClusterNode) -> None:
        """Note whom to ask for the table."""
        self._node = node

    async def get_keys(self, command: str, *arguments: Any) -> Sequence[Any] | None:
        """Return the keys among the arguments; None or nothing where there are none."""
        name = command.lower()
        if name in _FIRST:
            return arguments[:1]
        if name in _ALL:
            return arguments
        if name in _PAIRS:
            return arguments[::2]
        if self._node is not None:
            node = self._node
            await self._others.initialize(node)
            if self._node is node:
                self._node = None
        keys: Sequence[Any] | None = await self._others.get_keys(command, *arguments)
        return keys
