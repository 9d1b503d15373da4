"""The session repository: everything that callers do with sessions."""

from agent_service.infrastructure.database.limits import SessionLimits
from agent_service.infrastructure.database.repositories.results import (
    CounterDrift,
    CursorPage,
    ImportResult,
    PaginatedResult,
    SearchHit,
    SessionStats,
    Truncation,
)
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = [
    "CounterDrift",
    "CursorPage",
    "ImportResult",
    "PaginatedResult",
    "SearchHit",
    "SessionLimits",
    "SessionRepository",
    "SessionStats",
    "Truncation",
]
