"""Builds the transport to a target: every redis-py client and pool of the package, with every option spelled out."""

import functools
import sys
from typing import Any, Final

from redis.asyncio import Connection, ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff

from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.transport.abandoned import greet_and_identify
from agent_service.infrastructure.redis.transport.base import Transport
from agent_service.infrastructure.redis.transport.cluster import ClusterTransport
from agent_service.infrastructure.redis.transport.connections import (
    PatientConnection,
    TlsConnection,
    TlsSentinelConnection,
)
from agent_service.infrastructure.redis.transport.key_places import KeyPlaces
from agent_service.infrastructure.redis.transport.sentinels import SharedSentinel
from agent_service.infrastructure.redis.transport.server import ServerTransport
from agent_service.infrastructure.redis.transport.tls import tls_of

__all__ = ["open_sentinel", "open_transport"]

_UNLIMITED: Final = {"socket_timeout": None, "socket_connect_timeout": None}
"""What takes too long is ended by the operation's deadline, or by the limits of our own connections."""

_NO_LIMIT = sys.maxsize
"""Connections that redis-py may open: our slots limit them, while redis-py raises at its maximum."""


def open_transport(target: RedisTarget, *, timeout: float) -> Transport:
    """Build the transport to a target. Connects nothing yet.

    Retries are off everywhere (a retry would send an INCR twice), replies are bytes, the protocol is RESP2. No
    connection or read has a timeout of its own: the operation's deadline ends them, and only that takes into account
    that this process may have been too busy to read. Sentinels and clusters have shorter limits, so that one node that
    hangs leaves time to ask another.
    """
    if target.topology == "cluster":
        return _cluster(target, timeout)
    if target.topology == "sentinel":
        return _sentinel(target, timeout)
    if target.embedded:
        return _embedded(target)
    pool = ConnectionPool(max_connections=_NO_LIMIT, **_where(target), **_how(target))
    return ServerTransport(Redis(connection_pool=pool), owned=True)


def _embedded(target: RedisTarget) -> Transport:
    from agent_service.infrastructure.redis.transport.embedded import (  # noqa: PLC0415 - others do not pay for it
        EmbeddedConnection,
        embedded_server,
    )

    server = embedded_server(target)
    where: dict[str, Any] = {"connection_class": EmbeddedConnection, "path": target.path, "server": server}
    pool = ConnectionPool(max_connections=_NO_LIMIT, **where, **_how(target))
    return ServerTransport(Redis(connection_pool=pool), owned=True, starting=server.is_starting)


def _where(target: RedisTarget) -> dict[str, Any]:
    if target.path is not None:
        return {"connection_class": UnixDomainSocketConnection, "path": target.path}
    host, port = target.addresses[0]
    return {"host": host, "port": port, **_kind(target, Connection, TlsConnection)}


def _kind(target: RedisTarget, plain: type[Connection], tls: type[TlsConnection]) -> dict[str, Any]:
    """Return the class of the connections, and the TLS options that they share."""
    shared = tls_of(target)
    return {"connection_class": plain} if shared is None else {"connection_class": tls, "tls": shared}


def _use(pool: ConnectionPool | ClusterNode, kind: dict[str, Any]) -> None:
    """Set what redis-py's constructor of a pool has no argument for."""
    options = dict(kind)
    pool.connection_class = options.pop("connection_class")
    pool.connection_kwargs.update(options)


def _how(target: RedisTarget) -> dict[str, Any]:
    return {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "protocol": 2,
        "decode_responses": False,
        "retry": _no_retry(),
        **_UNLIMITED,
        **_driver(),
        "redis_connect_func": greet_and_identify,
        **{name: value for name, value in target.options.items() if not name.startswith("ssl_")},
    }


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


@functools.lru_cache(maxsize=1)
def _driver() -> dict[str, Any]:
    """Return who redis-py says it is. Without it, 7.2 and later read the metadata of the package per connection."""
    try:
        from redis.driver_info import DriverInfo  # noqa: PLC0415 - not there before 7.2
    except ImportError:
        return {}
    return {"driver_info": DriverInfo()}


def open_sentinel(target: RedisTarget, *, timeout: float) -> SharedSentinel:
    """Return what asks the sentinels of a target; each has its share of the time, so that one may hang."""
    share = timeout / (len(target.addresses) + 1)
    sentinel = SharedSentinel(  # type: ignore[no-untyped-call]
        target.addresses,
        sentinel_kwargs={"protocol": 2, "retry": _no_retry(), **_UNLIMITED, **_driver(), **target.sentinel_options},
    )
    kind = _kind(target, PatientConnection, TlsConnection)
    for each in sentinel.sentinels:
        _use(each.connection_pool, kind | {"connect_within": share, "answer_within": share})
    return sentinel


def _sentinel(target: RedisTarget, timeout: float) -> Transport:
    sentinel = open_sentinel(target, timeout=timeout)
    kind = _kind(target, SentinelManagedConnection, TlsSentinelConnection)
    how = {**_how(target), **kind, "max_connections": _NO_LIMIT}
    return ServerTransport(sentinel.master_for(target.service or "", **how), owned=True, sentinel=sentinel)


def _cluster(target: RedisTarget, timeout: float) -> Transport:
    how = {**_how(target), "max_connections": _NO_LIMIT}
    del how["redis_connect_func"]  # redis-py's cluster client greets its nodes by itself
    client = RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in target.addresses], **how)
    client.commands_parser = KeyPlaces(client)  # type: ignore[assignment]  # only these two methods are called
    kind = _kind(target, PatientConnection, TlsConnection)
    kind |= {"connect_within": timeout / 4, "answer_within": timeout * 0.8}
    client.connection_kwargs.update(kind)  # of the nodes that it will find
    for node in client.nodes_manager.startup_nodes.values():
        _use(node, kind)
    return ClusterTransport(client, owned=True)
