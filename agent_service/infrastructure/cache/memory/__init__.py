"""The cache in this process's memory."""

from agent_service.infrastructure.cache.memory.cache import InMemoryCache

__all__ = ["InMemoryCache"]
