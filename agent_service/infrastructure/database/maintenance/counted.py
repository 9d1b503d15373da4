"""What cleanups have done, one round and all of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from agent_service.core.living import Living
from agent_service.core.measured import Sample, measured_by

__all__ = ["SHARED", "CleanupCounts", "CleanupMetrics", "show"]


@dataclass(slots=True)
class CleanupCounts:
    """What one cleanup did: sessions completed and removed, what else it removed, and messages it indexed.

    ``expired_contexts`` and ``expired_items`` had a time to live that is over; ``purged_threads`` are threads of
    checkpoints and ``purged_conversations`` conversations of Pydantic AI that nobody used for long.
    """

    completed: int = 0
    purged: int = 0
    expired_contexts: int = 0
    indexed: int = 0
    expired_items: int = 0
    purged_threads: int = 0
    purged_conversations: int = 0


@dataclass(slots=True, weakref_slot=True)
class CleanupMetrics:
    """What a schedule has done since it started. Reading it costs nothing.

    The counts are those of :class:`CleanupCounts`, also of a round that failed later on; ``last_seconds`` is how long
    the latest round took, and ``last_success`` when one last went well.
    """

    rounds: int = 0
    failures: int = 0
    completed: int = 0
    purged: int = 0
    expired_contexts: int = 0
    last_seconds: float = 0.0
    last_success: datetime | None = None
    expired_items: int = 0
    purged_threads: int = 0
    purged_conversations: int = 0
    indexed: int = 0

    def add(self, counts: CleanupCounts) -> None:
        """Add what a round did."""
        for name, count in asdict(counts).items():
            setattr(self, name, getattr(self, name) + count)


SHARED: Final = CleanupMetrics()
"""Counts the schedules of this process that were given no object to count in."""
_all: Final = Living[CleanupMetrics]()


def show(metrics: CleanupMetrics) -> None:
    """Let the process's metrics show what a schedule does, as long as its object lives."""
    _all.add(metrics)


show(SHARED)


def _samples() -> Iterator[Sample]:
    """Yield what the schedules of this process have done."""
    known = _all.all()
    yield Sample("cleanup_rounds", sum(each.rounds for each in known))
    yield Sample("cleanup_failures", sum(each.failures for each in known))
    yield Sample("cleanup_sessions", sum(each.completed for each in known), ("completed",))
    yield Sample("cleanup_sessions", sum(each.purged for each in known), ("purged",))
    yield Sample("cleanup_expired_contexts", sum(each.expired_contexts for each in known))
    yield Sample("cleanup_expired_items", sum(each.expired_items for each in known))
    yield Sample("cleanup_purged_threads", sum(each.purged_threads for each in known))
    yield Sample("cleanup_purged_conversations", sum(each.purged_conversations for each in known))
    yield Sample("cleanup_last_round_seconds", max(each.last_seconds for each in known))
    successes = [each.last_success.timestamp() for each in known if each.last_success is not None]
    yield Sample("cleanup_last_success_timestamp_seconds", max(successes, default=0))


measured_by("cleanup", _samples)
