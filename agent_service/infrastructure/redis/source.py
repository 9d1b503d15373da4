"""Which Redis holds records: the live runtime's on every event loop, else that of REDIS_URL."""

from collections.abc import Callable
from typing import TypeAlias

from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["RedisSource", "get_record_redis", "set_redis_source"]

RedisSource: TypeAlias = Callable[[], RedisManager | None]

_source: RedisSource | None = None


def set_redis_source(source: RedisSource | None) -> None:
    """Set from where repositories and ``ops`` get Redis before they ask ``get_redis_manager()``.

    :param source: called on the event loop of each operation; returns the manager to use there, or None for that of
        REDIS_URL. None: there is no source.
    """
    global _source
    _source = source


async def get_record_redis() -> RedisManager:
    """Return the manager of the Redis that holds records, for this event loop. No I/O.

    :raises RedisUnavailableError: when the source's Redis cannot be reached from this event loop.
    :raises ConfigurationError: when REDIS_URL is asked and cannot be used.
    """
    manager = _source() if _source is not None else None
    return manager if manager is not None else await get_redis_manager()
