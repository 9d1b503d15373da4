"""From a target to its lane: every redis-py object of the package is built here, with every choice spelled out."""

import sys
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from agent_service.core.redis_url import RedisTarget
from agent_service.infrastructure.redis.abandoned import introduce
from agent_service.infrastructure.redis.cluster import ClusterLane
from agent_service.infrastructure.redis.lane import Lane
from agent_service.infrastructure.redis.server import ServerLane

__all__ = ["open_lane", "open_sentinel"]

_NO_LIMIT = sys.maxsize
"""Connections redis-py may open: the client's own limiter decides, and redis-py raises at its maximum."""


def open_lane(target: RedisTarget, *, timeout: float) -> Lane:
    """Build the lane to a target. Connects nothing yet.

    Retries are off everywhere (a retry would send an INCR twice), replies are bytes, the protocol is RESP2. There is
    no timeout per read, because the operation's deadline ends it; sentinels and clusters have shorter ones of their
    own, so that one node that hangs leaves time to ask another.
    """
    if target.topology == "cluster":
        return _cluster(target, timeout)
    if target.topology == "sentinel":
        return _sentinel(target, timeout)
    pool = ConnectionPool(
        connection_class=_connection_class(target), max_connections=_NO_LIMIT, **_where(target), **_how(target, timeout)
    )
    return ServerLane(Redis(connection_pool=pool), owned=True)


def _connection_class(target: RedisTarget) -> type[Connection | UnixDomainSocketConnection]:
    if target.path is not None:
        return UnixDomainSocketConnection
    return SSLConnection if target.tls else Connection


def _where(target: RedisTarget) -> dict[str, Any]:
    if target.path is not None:
        return {"path": target.path}
    host, port = target.addresses[0]
    return {"host": host, "port": port}


def _how(target: RedisTarget, timeout: float) -> dict[str, Any]:
    return {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "protocol": 2,
        "decode_responses": False,
        "retry": _no_retry(),
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "redis_connect_func": introduce,
        **target.options,
    }


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def open_sentinel(target: RedisTarget, *, timeout: float) -> Sentinel:
    """Build what asks the sentinels of a target; none of them may take longer than its share of the time."""
    share = timeout / (len(target.addresses) + 1)
    return Sentinel(  # type: ignore[no-untyped-call]
        target.addresses,
        sentinel_kwargs={
            "protocol": 2,
            "retry": _no_retry(),
            "socket_timeout": share,
            "socket_connect_timeout": share,
            **{name: value for name, value in target.options.items() if name.startswith("ssl_")},
            **target.sentinel_options,
            "ssl": target.tls,
        },
    )


def _sentinel(target: RedisTarget, timeout: float) -> Lane:
    sentinel = open_sentinel(target, timeout=timeout)
    how = {**_how(target, timeout), "ssl": target.tls, "max_connections": _NO_LIMIT}
    return ServerLane(sentinel.master_for(target.service or "", **how), owned=True, sentinel=sentinel)


def _cluster(target: RedisTarget, timeout: float) -> Lane:
    how = {
        **_how(target, timeout),
        "socket_timeout": timeout * 0.8,
        "socket_connect_timeout": timeout / 4,
        "max_connections": _NO_LIMIT,
        "ssl": target.tls,
    }
    del how["redis_connect_func"]  # redis-py's cluster client greets its nodes by itself
    nodes = [ClusterNode(host, port) for host, port in target.addresses]
    return ClusterLane(RedisCluster(startup_nodes=nodes, **how), owned=True)
