"""State: one typed, versioned context per user, on the backend of your choice.

A backend is imported when its name is first used, so that nobody pays for a driver he does not use.
"""

import importlib as _importlib
import typing as _typing

from agent_service.core.errors import StateConflictError, StateStoreError
from agent_service.state.evolution import register_upgrader
from agent_service.state.interface import StateStore
from agent_service.state.memory import InMemoryStateStore
from agent_service.state.models import AgentContext, ChatMessage, CoachContext, CoachingState, UserProfile
from agent_service.state.over_context import ContextStateStore

if _typing.TYPE_CHECKING:
    from agent_service.state.dynamodb import DynamoDBStateStore
    from agent_service.state.file import FileStateStore
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

_BACKENDS = {
    "DynamoDBStateStore": "agent_service.state.dynamodb",
    "FileStateStore": "agent_service.state.file",
    "RedisStateStore": "agent_service.state.redis",
    "SQLStateStore": "agent_service.state.sql",
}


def __getattr__(name: str) -> object:
    if name not in _BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_BACKENDS[name]), name)
    return value
