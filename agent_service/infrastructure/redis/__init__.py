"""The Redis room, the only one that speaks to redis-py."""

from agent_service.infrastructure.redis import ops as ops
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.records.record import HashRecord

__all__ = ["HashRecord", "RedisClient", "RedisManager", "close_redis", "get_redis_manager"]
