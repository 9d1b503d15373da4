"""How long a session may grow, and how long it lives."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from agent_service.core.logging import logger
from agent_service.core.settings import get_settings

__all__ = ["SessionLimits", "limits_from_settings"]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session may grow before we warn, and how long it lives without activity."""

    max_messages: int
    expiry: timedelta

    def warn_if_long(self, session_id: UUID, count: int) -> None:
        """Log a warning if a session has outgrown its limit."""
        if count > self.max_messages:
            logger.warning(
                "session %s holds %d messages, more than SESSION_MAX_MESSAGES (%d)",
                session_id, count, self.max_messages,
            )  # fmt: skip


def limits_from_settings() -> SessionLimits:
    """Read SESSION_MAX_MESSAGES and SESSION_EXPIRY_HOURS."""
    settings = get_settings()
    return SessionLimits(settings.session_max_messages, timedelta(hours=settings.session_expiry_hours))
