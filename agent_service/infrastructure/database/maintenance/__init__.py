"""Maintenance of stored sessions: the scheduled cleanup and its parts."""

from agent_service.infrastructure.database.maintenance.cleanup import cleanup_once, run_cleanup
from agent_service.infrastructure.database.maintenance.counted import CleanupCounts, CleanupMetrics
from agent_service.infrastructure.database.maintenance.others import (
    expire_contexts,
    expire_items,
    purge_conversations,
    purge_threads,
)
from agent_service.infrastructure.database.maintenance.sessions import index_messages, purge, sweep

__all__ = [
    "CleanupCounts",
    "CleanupMetrics",
    "cleanup_once",
    "expire_contexts",
    "expire_items",
    "index_messages",
    "purge",
    "purge_conversations",
    "purge_threads",
    "run_cleanup",
    "sweep",
]
