"""Which servers take the writes of a target, and whether they still are the ones.

An invalidation stream listens to all of them, and believes a round of heartbeats only while the topology is the one it
listens to; otherwise it would go on trusting a master that nobody writes to any more.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from agent_service.core.turns import Turns
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.errors import is_translatable
from agent_service.infrastructure.redis.tracking.push_connection import Address, PushConnector
from agent_service.infrastructure.redis.transport.base import Command
from agent_service.infrastructure.redis.transport.connect import open_sentinel
from agent_service.infrastructure.redis.transport.sentinels import SharedSentinel

__all__ = ["Primaries", "Primary", "find_primaries"]


@dataclass(frozen=True, slots=True)
class Primary:
    """A server that takes writes."""

    address: Address | None
    """None: the unix socket of the target."""
    id: str = ""
    """Of a cluster's node."""
    slots: tuple[tuple[int, int], ...] = ((0, REDIS_CLUSTER_HASH_SLOTS - 1),)
    """First and last of each range it answers for."""

    def owns(self, key: bytes) -> bool:
        """Whether this server answers for the key."""
        slot = key_slot(key)
        return any(first <= slot <= last for first, last in self.slots)


class Primaries(ABC):
    """The servers of one target. Methods raise errors of redis-py, and OSError."""

    question: Command = ("HELLO", 3)
    """What each of them is asked in every round, to be told who it is."""
    has_databases = True
    """Whether they have several, which can be swapped."""

    @abstractmethod
    async def find(self) -> Sequence[Primary]:
        """Ask for the servers as they are now."""

    @abstractmethod
    async def confirm(self, answers: Mapping[Primary, Any]) -> None:
        """Raise unless these are all the servers still.

        :param answers: what each of them replied to the question.
        """

    async def aclose(self) -> None:
        """Close what was opened to find them."""
        return


def find_primaries(target: RedisTarget, connector: PushConnector, *, timeout: float) -> Primaries:
    """Return the way to find the servers of a target.

    :param timeout: seconds to wait for a server that is asked for the others.
    """
    if target.topology == "cluster":
        return _Cluster(target.addresses, connector, timeout)
    if target.topology == "sentinel":
        return _Sentinels(open_sentinel(target, timeout=timeout), target.service or "")
    return _One(Primary(target.addresses[0] if target.path is None else None))


def _check_roles(answers: Mapping[Primary, Any]) -> None:
    """A name may lead to a new master while the old one lives on as its replica."""
    for greeting in answers.values():
        if greeting.get(b"role", b"master") != b"master":
            raise RedisConnectionError("the server is no master any more")


class _One(Primaries):
    def __init__(self, primary: Primary) -> None:
        self._primary = primary

    async def find(self) -> Sequence[Primary]:
        return [self._primary]

    async def confirm(self, answers: Mapping[Primary, Any]) -> None:
        _check_roles(answers)


class _Sentinels(Primaries):
    """The master that sentinels name.

    They are asked in every round, because a master that was replaced while it was cut off may still answer us.
    """

    def __init__(self, sentinel: SharedSentinel, service: str) -> None:
        self._sentinel = sentinel
        self._service = service

    async def find(self) -> Sequence[Primary]:
        host, port = await self._sentinel.discover_master(self._service)
        return [Primary((host, int(port)))]

    async def confirm(self, answers: Mapping[Primary, Any]) -> None:
        _check_roles(answers)
        if list(await self.find()) != list(answers):
            raise RedisConnectionError(f"the sentinels name another master of {self._service}")

    async def aclose(self) -> None:
        await self._sentinel.aclose()


class _Cluster(Primaries):
    """All primaries of a cluster, those without slots too, because a key may be moved to one before its slot is.

    Every primary is asked for its view in every round, and all views must be the same: a primary that was replaced does
    not know it, but those that voted do. What remains is the time in which the news travels on the cluster's own bus.
    """

    question = ("CLUSTER", "NODES")
    has_databases = False

    def __init__(self, seeds: Sequence[Address], connector: PushConnector, timeout: float) -> None:
        self._seeds = seeds
        self._known: tuple[Address, ...] = ()
        self._connector = connector
        self._timeout = timeout

    async def find(self) -> Sequence[Primary]:
        failure: Exception | None = None
        for address in dict.fromkeys((*self._known, *self._seeds)):
            try:
                async with Turns(self._timeout):
                    found = await self._view_of(address)
            except Exception as exc:
                if not is_translatable(exc):
                    raise
                failure = failure or exc
            else:
                self._known = tuple(each.address for each in found if each.address is not None)
                return found
        raise failure or RedisConnectionError("the cluster has no nodes")

    async def _view_of(self, address: Address) -> Sequence[Primary]:
        connection = await self._connector.open(address, on_push=lambda _: None, on_lost=lambda: None)
        try:
            return _view(await connection.ask(*self.question), address[0])
        finally:
            await connection.aclose()

    async def confirm(self, answers: Mapping[Primary, Any]) -> None:
        for primary, nodes in answers.items():
            assert primary.address is not None
            if _view(nodes, primary.address[0]) != list(answers):
                raise RedisConnectionError("the primaries of the cluster or their slots have changed")


_UNUSABLE: Final = frozenset({"handshake", "noaddr"})


def _view(nodes: bytes, host: str) -> list[Primary]:
    """Read the primaries from a reply to CLUSTER NODES, ordered by their ids.

    One that has failed and owns nothing any more is left out. One that has failed and owns slots stays: while nobody
    has taken them over, nobody can be trusted about them.

    :param host: of the node that was asked; it may not know its own.
    """
    primaries = []
    for line in nodes.decode().splitlines():
        node_id, place, flags, _, _, _, _, _, *slots = line.split(" ")
        owned = tuple(_range(each) for each in slots if not each.startswith("["))  # "[" begins one that is being moved
        traits = set(flags.split(","))
        if "master" not in traits or traits & _UNUSABLE or ("fail" in traits and not owned):
            continue
        address, *names = place.split(",")
        ip, _, port = address.partition("@")[0].rpartition(":")
        primaries.append(Primary(((names[0] if names else "") or ip or host, int(port)), node_id, owned))
    return sorted(primaries, key=lambda each: each.id)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
