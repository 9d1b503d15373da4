"""A transport over a redis-py client that a caller owns and closes."""

import sys
from typing import Any

from redis.asyncio import Connection, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import RedisCluster

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.redis.transport.base import Transport
from agent_service.infrastructure.redis.transport.cluster import ClusterTransport
from agent_service.infrastructure.redis.transport.server import ServerTransport

__all__ = ["transport_over"]


def transport_over(client: Redis | RedisCluster) -> tuple[Transport, int]:
    """Return the transport, and how many operations it can run at once.

    :raises ConfigurationError: when the client is none of redis.asyncio, decodes replies, or speaks RESP3.
    """
    if not isinstance(client, Redis | RedisCluster) or isinstance(client, Pipeline):
        kind = type(client)
        raise ConfigurationError(
            f"client is a {kind.__module__}.{kind.__qualname__}, which cannot be awaited as a client is; give "
            "url=, a RedisClient, or a client of redis.asyncio (Redis or RedisCluster)"
        )
    if client.get_encoder().decode_responses:
        raise ConfigurationError("client decodes replies; build it with decode_responses=False")
    place: Any = client.connection_pool if isinstance(client, Redis) else client
    if Connection(protocol=place.connection_kwargs.get("protocol")).protocol != 2:
        raise ConfigurationError(
            "client speaks RESP3, over which redis-py may reuse a connection that still holds an unread reply; "
            "build it with protocol=2"
        )
    if isinstance(client, RedisCluster):
        return ClusterTransport(client, owned=False), sys.maxsize
    return ServerTransport(client, owned=False), place.max_connections
