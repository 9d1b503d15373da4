"""Contexts in Redis."""

from agent_service.context.redis.source import DEFAULT_PREFIX, RedisContextConfig
from agent_service.context.redis.store import RedisContextStore

__all__ = ["DEFAULT_PREFIX", "RedisContextConfig", "RedisContextStore"]
