"""What draining has done in this process, shown among the metrics of the caches."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.measured import Sample, measured_by
from agent_service.infrastructure.redis.factory import get_redis_manager

__all__ = ["MOST_COUNTED", "OutboxCounters", "counters", "outbox_metrics"]

MOST_COUNTED: Final = 10_000
"""Rows that are counted while the outbox cannot be drained: with more of them a count would take long."""


@dataclass(slots=True)
class OutboxCounters:
    """Rows applied, rows that cannot be read, passes that failed or could not reach the cache, and what is left.

    :param pending: rows that the last pass left to be applied, at most :data:`MOST_COUNTED`.
    :param oldest: when the oldest of these was added; None where there is none.
    """

    applied: int = 0
    unreadable: int = 0
    failures: int = 0
    pending: int = 0
    oldest: datetime | None = None

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest row that is left was added; 0.0 where none is."""
        return 0.0 if self.oldest is None else max((SYSTEM_CLOCK.now() - self.oldest).total_seconds(), 0.0)

    def left(self, pending: int, oldest: datetime | None) -> None:
        """Note what a pass has left."""
        self.pending, self.oldest = pending, oldest

    async def show(self) -> None:
        """Show them as ``outbox_applied``, ``outbox_unreadable`` and ``outbox_failures`` in every snapshot."""
        metrics = (await get_redis_manager()).metrics
        metrics.add_gauge("outbox_applied", lambda: self.applied)
        metrics.add_gauge("outbox_unreadable", lambda: self.unreadable)
        metrics.add_gauge("outbox_failures", lambda: self.failures)

    def samples(self) -> Iterator[Sample]:
        """Yield all of them."""
        yield Sample("outbox_applied", self.applied)
        yield Sample("outbox_unreadable", self.unreadable)
        yield Sample("outbox_failures", self.failures)
        yield Sample("outbox_pending", self.pending)
        yield Sample("outbox_oldest_age_seconds", self.oldest_age)


counters = OutboxCounters()
"""Shared by all event loops of this process."""
measured_by("outbox", counters.samples)


def outbox_metrics() -> dict[str, Any]:
    """Return what draining has done in this process, and what its last pass left. No I/O.

    ``applied`` and ``unreadable`` count rows, ``failures`` passes. ``pending`` is how many rows the last pass left,
    10,000 at most, and ``oldest_age`` how many seconds ago the oldest of them was added, by this host's clock.
    """
    return {
        "applied": counters.applied,
        "unreadable": counters.unreadable,
        "failures": counters.failures,
        "pending": counters.pending,
        "oldest_age": counters.oldest_age,
    }
