"""Sessions as their callers see them."""

from agent_service.infrastructure.database.repositories.base import SessionLimits
from agent_service.infrastructure.database.repositories.results import CursorPage, PaginatedResult, SessionStats
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["CursorPage", "PaginatedResult", "SessionLimits", "SessionRepository", "SessionStats"]
