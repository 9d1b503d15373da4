"""State: one typed, versioned context per user, on the backend of your choice."""

from agent_service.core.errors import StateConflictError, StateStoreError
from agent_service.state.dynamodb import DynamoDBStateStore
from agent_service.state.evolution import register_upgrader
from agent_service.state.file import FileStateStore
from agent_service.state.interface import StateStore
from agent_service.state.memory import InMemoryStateStore
from agent_service.state.models import AgentContext, ChatMessage, CoachContext, CoachingState, UserProfile
from agent_service.state.over_context import ContextStateStore
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore

__all__ = [
    "AgentContext",
    "ChatMessage",
    "CoachContext",
    "CoachingState",
    "ContextStateStore",
    "DynamoDBStateStore",
    "FileStateStore",
    "InMemoryStateStore",
    "RedisStateStore",
    "SQLStateStore",
    "StateConflictError",
    "StateStore",
    "StateStoreError",
    "UserProfile",
    "register_upgrader",
]
