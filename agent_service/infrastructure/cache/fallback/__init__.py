"""Redis while it serves, memory while it does not."""

from agent_service.infrastructure.cache.fallback.cache import FallbackCache

__all__ = ["FallbackCache"]
