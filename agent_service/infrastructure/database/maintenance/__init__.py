"""The scheduled cleanup of sessions, and erasing a user."""

from agent_service.infrastructure.database.maintenance.cleanup import (
    CleanupCounts,
    CleanupMetrics,
    cleanup_once,
    expire_contexts,
    index_messages,
    purge,
    purge_threads,
    run_cleanup,
    sweep,
)

__all__ = [
    "CleanupCounts",
    "CleanupMetrics",
    "cleanup_once",
    "expire_contexts",
    "index_messages",
    "purge",
    "purge_threads",
    "run_cleanup",
    "sweep",
]
