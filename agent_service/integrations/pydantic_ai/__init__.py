"""Conversations of Pydantic AI in PostgreSQL or SQLite: extra ``pydantic-ai``."""

try:
    import pydantic_ai.conversation_store  # noqa: F401 - it came with 2.66
except ImportError as exc:
    raise ImportError(
        "agent_service.integrations.pydantic_ai needs Pydantic AI 2.66 or later: "
        'pip install "agent-service[pydantic-ai]"'
    ) from exc

from agent_service.integrations.pydantic_ai.conflict import StoredConversationConflict
from agent_service.integrations.pydantic_ai.store import DatabaseConversationStore

__all__ = ["DatabaseConversationStore", "StoredConversationConflict"]
