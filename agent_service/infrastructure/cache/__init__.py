"""The cache: may lose data, never lies, never raises for an outage."""

from agent_service.core.codec import Serializer, register_type
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.cache.calls.cached_function import CacheInfo
from agent_service.infrastructure.cache.calls.decorators import CachedFunction, cache_invalidate, cached
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache, Loaded, Lookup, Miss
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager

__all__ = [
    "MISS",
    "NEVER",
    "TTL",
    "CacheInfo",
    "CachedFunction",
    "FallbackCache",
    "Hit",
    "ICache",
    "InMemoryCache",
    "Loaded",
    "Lookup",
    "Miss",
    "NearFeed",
    "RedisCache",
    "Serializer",
    "TieredCache",
    "cache_invalidate",
    "cached",
    "close_cache",
    "close_redis",
    "get_cache",
    "get_redis_manager",
    "register_type",
]
