"""What draining has done in this process, shown among the metrics of the caches."""

from dataclasses import dataclass

from agent_service.infrastructure.redis.factory import get_redis_manager

__all__ = ["OutboxCounters", "counters"]


@dataclass(slots=True)
class OutboxCounters:
    """Rows applied, rows that cannot be read, and passes that failed or could not reach the cache."""

    applied: int = 0
    unreadable: int = 0
    failures: int = 0

    async def show(self) -> None:
        """Show them as ``outbox_applied``, ``outbox_unreadable`` and ``outbox_failures`` in every snapshot."""
        metrics = (await get_redis_manager()).metrics
        metrics.add_gauge("outbox_applied", lambda: self.applied)
        metrics.add_gauge("outbox_unreadable", lambda: self.unreadable)
        metrics.add_gauge("outbox_failures", lambda: self.failures)


counters = OutboxCounters()
"""Shared by all event loops of this process."""
