"""The scheduled cleanup of sessions, and erasing a user."""

from agent_service.infrastructure.database.maintenance.cleanup import (
    CleanupCounts,
    CleanupMetrics,
    cleanup_once,
    expire_contexts,
    expire_conversations,
    index_messages,
    purge,
    run_cleanup,
    sweep,
)

__all__ = [
    "CleanupCounts",
    "CleanupMetrics",
    "cleanup_once",
    "expire_contexts",
    "expire_conversations",
    "index_messages",
    "purge",
    "run_cleanup",
    "sweep",
]
