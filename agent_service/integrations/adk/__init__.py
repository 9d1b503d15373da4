"""Sessions and memory for Google's Agent Development Kit: extra ``adk``."""

try:
    import google.adk.sessions as _adk  # noqa: F401
except ImportError as exc:
    raise ImportError(
        'agent_service.integrations.adk needs Google ADK: pip install "agent-service[adk]"', name=exc.name
    ) from exc

from agent_service.integrations.adk.errors import (
    AdkSessionExistsError,
    AdkSessionNotFoundError,
    AdkStaleSessionError,
)
from agent_service.integrations.adk.memory import AdkMemoryService
from agent_service.integrations.adk.sessions import AdkSessionService

__all__ = [
    "AdkMemoryService",
    "AdkSessionExistsError",
    "AdkSessionNotFoundError",
    "AdkSessionService",
    "AdkStaleSessionError",
]
