"""The transport to a Redis Cluster: redis-py's cluster client finds the node of each key and follows redirections.

Commands are named in lower case here: Redis accepts that, and redis-py finds its conversions of replies by upper case
only. So replies stay those of RESP2, the same as from one server.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError

from agent_service.infrastructure.redis.operation import Operation
from agent_service.infrastructure.redis.transport.arrived import has_arrived
from agent_service.infrastructure.redis.transport.base import MAX_KEYS_PER_COMMAND, Command, ScanCursor, Transport

__all__ = ["ClusterTransport"]

_ANY_NODE = frozenset({"ping", "info", "time", "script", "command", "client", "config", "dbsize"})


class ClusterTransport(Transport):
    """Runs commands on a redis-py cluster client.

    :param client: not closed here unless ``owned``.
    """

    is_cluster = True

    def __init__(self, client: RedisCluster, *, owned: bool) -> None:
        self._client = client
        self._owned = owned

    @property
    def raw(self) -> RedisCluster:
        return self._client

    async def execute(self, operation: Operation, command: Command) -> Any:
        await self._client.initialize()
        operation.sent = True
        operation.arrived = self._has_arrived
        name, arguments = _name(command), command[1:]
        if name in _ANY_NODE:
            return await self._client.execute_command(
                name, *arguments, target_nodes=self._client.get_random_primary_node()
            )
        return await self._client.execute_command(name, *arguments)

    async def pipeline(self, operation: Operation, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        await self._client.initialize()
        pipeline = self._client.pipeline(transaction=atomic)
        for command in commands:
            pipeline.execute_command(_name(command), *command[1:])
        operation.sent = True
        operation.arrived = self._has_arrived
        return list(await pipeline.execute(raise_on_error=False))

    async def get_many(self, operation: Operation, keys: Sequence[bytes]) -> list[bytes | None]:
        """Send one command per slot, in one round trip per node, all at once; not one snapshot."""
        values: list[bytes | None] = [None] * len(keys)
        groups = self._by_slot(keys)
        replies = await self._each_slot(operation, "mget", [[keys[place] for place in group] for group in groups])
        for group, reply in zip(groups, replies, strict=True):
            for place, value in zip(group, reply, strict=True):
                values[place] = value
        return values

    async def set_many(self, operation: Operation, values: Mapping[bytes, bytes]) -> None:
        groups = self._by_slot(list(values))
        pairs = list(values.items())
        await self._each_slot(
            operation, "mset", [list(chain.from_iterable(pairs[place] for place in group)) for group in groups]
        )

    async def delete(self, operation: Operation, command: bytes, keys: Sequence[bytes]) -> int:
        groups = self._by_slot(keys)
        name = command.decode().lower()
        return sum(await self._each_slot(operation, name, [[keys[place] for place in group] for group in groups]))

    def _has_arrived(self) -> bool:
        """Return whether any connection holds something; those to a node that hangs have shorter limits."""
        return any(has_arrived(each) for node in self._client.get_nodes() for each in node._connections)  # noqa: SLF001

    def _by_slot(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Return the positions of the keys, grouped by slot."""
        slots: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            slots.setdefault(self._client.keyslot(key), []).append(place)
        return [
            group[start : start + MAX_KEYS_PER_COMMAND]
            for group in slots.values()
            for start in range(0, len(group), MAX_KEYS_PER_COMMAND)
        ]

    async def _each_slot(self, operation: Operation, command: str, groups: list[list[bytes]]) -> list[Any]:
        replies = await self.pipeline(operation, [(command, *group) for group in groups], atomic=False)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def scan_page(
        self, operation: Operation, cursor: ScanCursor | None, match: bytes, count: int
    ) -> tuple[ScanCursor | None, list[bytes]]:
        await self._client.initialize()
        if cursor is None:
            cursor = ScanCursor(0, tuple(node.name for node in self._client.get_primaries()))
        name, *others = cursor.primaries
        operation.sent = True
        operation.arrived = self._has_arrived
        following, keys = await self._client.execute_command(
            "scan", cursor.position, b"MATCH", match, b"COUNT", count, target_nodes=self._primary(name)
        )
        if int(following):
            return ScanCursor(int(following), cursor.primaries), keys
        return (ScanCursor(0, tuple(others)) if others else None), keys

    def _primary(self, name: str) -> ClusterNode:
        node = self._client.get_node(node_name=name)
        if node is None:
            raise RedisConnectionError(f"node {name} left the cluster while it was scanned")
        return node

    async def aclose(self) -> None:
        if self._owned:
            await self._client.aclose()
            # redis-py closes nothing while its view of the cluster is outdated, as it is after any outage.
            await self._client.nodes_manager.aclose("nodes_cache")
            await self._client.nodes_manager.aclose("startup_nodes")


def _name(command: Command) -> str:
    if not command:
        raise DataError("a command needs a name")
    name = command[0]
    return (name.decode() if isinstance(name, bytes) else str(name)).lower()
