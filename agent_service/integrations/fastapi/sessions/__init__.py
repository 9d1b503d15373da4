"""A REST API over sessions."""

from agent_service.integrations.fastapi.sessions.access import Caller, Operation
from agent_service.integrations.fastapi.sessions.router import sessions_router

__all__ = ["Caller", "Operation", "sessions_router"]
