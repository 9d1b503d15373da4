"""Memory in front of Redis."""

from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed

__all__ = ["NearFeed", "TieredCache"]
