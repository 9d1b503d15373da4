"""The cache in Redis: shared by processes, survives them."""

from agent_service.infrastructure.cache.redis.cache import RedisCache

__all__ = ["RedisCache"]
