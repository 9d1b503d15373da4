"""Context: a mapping from any hashable key to a dictionary, on the backend of your choice."""

from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.core.errors import ContextConfigError, ContextError, ContextKeyError, ContextStoreError

__all__ = [
    "ContextConfigError",
    "ContextError",
    "ContextKeyError",
    "ContextStore",
    "ContextStoreError",
    "InMemoryContextStore",
]
