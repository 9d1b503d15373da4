"""The base of all repositories of a tenant: the tenant, a default TTL, and access to Redis."""

from datetime import timedelta
from functools import lru_cache
from typing import TypeAlias

from agent_service.core.errors import RecordValueError
from agent_service.core.ttl import MAX_TTL
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.source import get_record_redis
from agent_service.tenants.keys import KeyFactory, encode_component

__all__ = ["DEFAULT_TTL", "Seconds", "TenantCache", "check_ttl", "current_redis"]

DEFAULT_TTL = 86_400.0
"""Seconds that a record lives after its last write, unless its repository has another default."""

Seconds: TypeAlias = int | float | timedelta

_keys_under = lru_cache(maxsize=64)(KeyFactory)


async def current_redis() -> tuple[RedisClient, KeyFactory]:
    """Return the client for this event loop, and the rules for keys under its prefix. No I/O.

    :raises RedisUnavailableError: if there is neither a runtime's Redis nor REDIS_URL, or if the runtime's cannot be
        reached from this loop.
    :raises ConfigurationError: if REDIS_URL cannot be used.
    """
    manager = await get_record_redis()
    return manager.client, _keys_under(manager.prefix)


def check_ttl(ttl: Seconds, name: str = "ttl") -> float:
    """Return a time to live in seconds.

    :param name: what to call the argument in an error.
    :raises RecordValueError: if it is 0 or less, NaN, infinity, more than 100 years, a bool or of any other type.
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise RecordValueError(
            f"{name} must be seconds (int or float) or a timedelta, not {type(ttl).__name__}: {ttl!r:.80}"
        )
    if not 0.001 <= seconds <= MAX_TTL:
        raise RecordValueError(
            f"{name} must be at least 0.001 and at most {MAX_TTL:.0f} seconds, got {seconds!r:.80}; "
            "to remove something, delete it"
        )
    return float(seconds)


class TenantCache:
    """Base of the repositories. An instance holds no connection: it is cheap, and tasks may share it.

    Redis is that of the live runtime on every event loop of the process, else that of REDIS_URL. Operations raise
    :class:`~agent_service.core.errors.RedisOperationError` kinds, and ``RecordValueError`` (a ``ValueError``) for
    arguments that cannot be used; nothing was written then. Data that was not written by this package is an
    ``UndecodableError`` that names the key. A replica of Redis that takes over may lack the latest writes.

    :param tenant: whose data this is; any text that is not empty. No method reaches another tenant's data.
    :param ttl_default: seconds that a record lives after its last write, unless the write itself gives a ``ttl``.
    :raises RecordValueError: if the tenant or TTL cannot be used.
    """

    def __init__(self, tenant: str, ttl_default: Seconds = DEFAULT_TTL) -> None:
        encode_component(tenant, "tenant")
        self.tenant = tenant
        self.ttl_default = check_ttl(ttl_default, "ttl_default")

    def _ttl(self, ttl: Seconds | None) -> float:
        return self.ttl_default if ttl is None else check_ttl(ttl)
