"""How long a session may grow, and how long it lives."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

from agent_service.core.memo import Memo, size_of
from agent_service.core.settings import get_settings

__all__ = ["SessionLimits", "limits_from_settings"]

logger = logging.getLogger("agent_service.database")

_WARNED_ABOUT: Final[Memo[tuple[str, UUID], None]] = Memo(10_000)
"""Sessions that were too long when this process last appended to them."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session may grow before we warn, and how long it lives without activity."""

    max_messages: int
    expiry: timedelta

    def warn_if_long(self, session_id: UUID, count: int, tenant_id: str = "") -> None:
        """Log a warning if a session has outgrown its limit, once in this process."""
        if count > self.max_messages and (tenant_id, session_id) not in _WARNED_ABOUT.known:
            _WARNED_ABOUT.keep((tenant_id, session_id), None, size_of((tenant_id, session_id.bytes)))
            logger.warning(
                "session %s holds %d messages, more than SESSION_MAX_MESSAGES (%d)",
                session_id, count, self.max_messages,
            )  # fmt: skip


def limits_from_settings() -> SessionLimits:
    """Read SESSION_MAX_MESSAGES and SESSION_EXPIRY_HOURS."""
    settings = get_settings()
    return _limits(settings.session_max_messages, settings.session_expiry_hours)


@lru_cache(maxsize=8)
def _limits(max_messages: int, hours: float) -> SessionLimits:
    return SessionLimits(max_messages, timedelta(hours=hours))
