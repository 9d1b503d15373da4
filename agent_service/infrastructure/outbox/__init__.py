"""Invalidations that commit with a database write, and then reach the caches whatever happens."""

from agent_service.infrastructure.outbox.counters import outbox_metrics
from agent_service.infrastructure.outbox.drain import drain_outbox
from agent_service.infrastructure.outbox.invalidate import invalidate_in
from agent_service.infrastructure.outbox.run import run_outbox

__all__ = ["drain_outbox", "invalidate_in", "outbox_metrics", "run_outbox"]
