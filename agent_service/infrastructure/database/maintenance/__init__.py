"""The scheduled cleanup of sessions, and erasing a user."""

from agent_service.infrastructure.database.maintenance.cleanup import (
    CleanupMetrics,
    index_messages,
    purge,
    run_cleanup,
    sweep,
)

__all__ = ["CleanupMetrics", "index_messages", "purge", "run_cleanup", "sweep"]
