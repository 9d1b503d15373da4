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
from agent_service.infrastructure.database.values.external_ids import external_id_of

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
    "external_id_of",
]
