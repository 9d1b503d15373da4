"""Waiting for replicas, which are asynchronous: what none of them has confirmed is lost when one takes over.

``WAIT`` answers for the writes of its own connection. A command that found nothing to change is no write, although
another connection may have made the same change just before; so a write of its own stands before each ``WAIT``.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from agent_service.core.errors import ConfigurationError, RedisUnreplicatedError
from agent_service.core.urls.redis import RedisTarget
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
    """Refuse what cannot be.

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
    """A key of the caller's own, which is written so that there is something to wait for."""
    fewest: int | None = None
    """The fewest replicas that confirmed a round trip in time; None: there was none."""

    @property
    def commands(self) -> list[Command]:
        """What is sent after the commands of a round trip."""
        wait = ("WAIT", self.asked.replicas, max(1, round(self.asked.seconds * 1000)))
        return [("SET", self.marker, b"", "PX", _MARKER_TTL_MS), wait]

    def note(self, replicas: int) -> None:
        """Take note of a reply to WAIT."""
        self.fewest = replicas if self.fewest is None else min(self.fewest, replicas)


def confirmed(confirmation: Confirmation | None, result: T) -> T:
    """Return the result of an operation.

    :param confirmation: None: nobody asked for any.
    :raises RedisUnreplicatedError: when too few replicas have confirmed it.
    """
    if confirmation is None or confirmation.fewest is None or confirmation.fewest >= confirmation.asked.replicas:
        return result
    replicas, seconds = confirmation.asked
    raise RedisUnreplicatedError(
        f"{confirmation.fewest} of {replicas} replicas confirmed an invalidation within {seconds:g} s", result=result
    )
