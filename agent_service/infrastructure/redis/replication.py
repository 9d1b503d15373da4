"""Waiting for replicas. They are asynchronous: what none of them has confirmed is lost when one takes over.

``WAIT`` counts the replicas that have the writes of its own connection. A command that found nothing to change is no
write, although another connection may have made the same change just before. So a write is sent before each ``WAIT``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from agent_service.core.errors import ConfigurationError, RedisRefusedError, RedisUnreplicatedError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.errors import translate
from agent_service.infrastructure.redis.operation import Operation
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Confirmation", "Replication", "check_replication", "confirmed"]

T = TypeVar("T")

_MARKER_TTL_MS: Final = 60_000


class Replication(NamedTuple):
    """How many replicas must confirm an invalidation, and how long they have."""

    replicas: int
    """At least 1."""
    seconds: float


def check_replication(asked: Replication, target: RedisTarget, timeout: float) -> None:
    """Check that a target supports a replication.

    :raises ConfigurationError: for a cluster, and for a time as long as that of an operation.
    """
    if target.topology == "cluster":
        raise ConfigurationError("REDIS_WAIT_REPLICAS works with one server or sentinels, not with a cluster; unset it")
    if not asked.seconds < timeout:
        raise ConfigurationError(
            f"REDIS_WAIT_TIMEOUT must be below REDIS_TIMEOUT ({timeout:g}), got {asked.seconds:g}; "
            "replicas that take as long as an operation may would look like an outage"
        )


@dataclass(slots=True)
class Confirmation:
    """Whether replicas have confirmed all round trips of one operation."""

    asked: Replication
    marker: bytes
    """A key of the caller's own, written so that there is something to wait for."""
    fewest: int | None = None
    """The fewest replicas that confirmed a round trip in time; None: there was none."""

    @property
    def commands(self) -> list[Command]:
        """What to send after the commands of a round trip."""
        wait = ("WAIT", self.asked.replicas, to_milliseconds(self.asked.seconds))
        return [("SET", self.marker, b"", "PX", _MARKER_TTL_MS), wait]

    def read(self, operation: Operation, commands: Sequence[Command], replies: Sequence[Any]) -> None:
        """Note how many replicas have confirmed a round trip, by the replies to its :attr:`commands`.

        :raises Exception: an error reply that is no refusal for now.
        """
        replicas = 0
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                if isinstance(translate(reply, sent=True), RedisRefusedError):
                    break  # no memory is left for the marker; the caller's commands were executed all the same
                operation.command = command
                raise reply
        else:
            replicas = int(replies[-1])
        self.fewest = replicas if self.fewest is None else min(self.fewest, replicas)


def confirmed(confirmation: Confirmation | None, result: T) -> T:
    """Return the result of an operation.

    :param confirmation: None: none was asked for.
    :raises RedisUnreplicatedError: when too few replicas have confirmed it.
    """
    if confirmation is None or confirmation.fewest is None or confirmation.fewest >= confirmation.asked.replicas:
        return result
    replicas, seconds = confirmation.asked
    raise RedisUnreplicatedError(
        f"{confirmation.fewest} of {replicas} replicas confirmed an invalidation within {seconds:g} s", result=result
    )
