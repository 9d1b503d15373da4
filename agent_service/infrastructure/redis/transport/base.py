"""What a client needs of the connections below it, whatever the topology."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from agent_service.infrastructure.redis.operation import Operation

__all__ = ["MAX_KEYS_PER_COMMAND", "Argument", "Command", "ScanCursor", "Transport"]

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = Sequence[Argument]

MAX_KEYS_PER_COMMAND = 1000
"""Longer lists of keys are sent as several commands of one round trip, between which the server serves others."""


@dataclass(frozen=True, slots=True)
class ScanCursor:
    """The position of a scan: SCAN's own cursor on the first of the primaries still to be read."""

    position: int
    primaries: tuple[str, ...] = ()


class Transport(ABC):
    """A way to Redis. Replies are those of RESP2, unconverted: bytes, int, list or None.

    Every method takes the running operation and sets its ``sent`` before it writes. Errors are redis-py's own, among
    them error replies. A connection never goes back to its pool while a reply is still to come. The client above limits
    how many operations run at once.
    """

    is_cluster: ClassVar[bool]
    """Whether keys of one script or transaction must share a slot."""

    @property
    @abstractmethod
    def raw(self) -> Any:
        """The redis-py client."""

    @abstractmethod
    async def execute(self, operation: Operation, command: Command) -> Any:
        """Run one command."""

    @abstractmethod
    def pipeline(self, operation: Operation, commands: Sequence[Command], *, atomic: bool) -> Awaitable[list[Any]]:
        """Run commands in one round trip; error replies are exceptions in the list."""

    @abstractmethod
    def get_many(self, operation: Operation, keys: Sequence[bytes]) -> Awaitable[list[bytes | None]]:
        """Return the strings at the keys, in their order; None where there is none."""

    @abstractmethod
    async def set_many(self, operation: Operation, values: Mapping[bytes, bytes]) -> None:
        """Store strings without expiry; atomic on one server, atomic per slot on a cluster."""

    @abstractmethod
    async def delete(self, operation: Operation, command: bytes, keys: Sequence[bytes]) -> int:
        """Delete keys by UNLINK or DEL; return how many there were."""

    @abstractmethod
    async def scan_page(
        self, operation: Operation, cursor: ScanCursor | None, match: bytes, count: int
    ) -> tuple[ScanCursor | None, list[bytes]]:
        """Return the next cursor (None: no more pages) and a page of matching keys at the cursor (None: the first)."""

    async def settle(self, operation: Operation) -> str | None:  # noqa: ARG002 - a transport that cannot do it does nothing
        """Make sure that abandoned commands will not run any more, where the topology allows it.

        Return the command that the server would have to permit for that; None when none is left to run.
        """
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections this transport opened."""
