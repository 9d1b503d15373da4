"""One manager per event loop and process, built from the settings."""

import asyncio
import os
import threading

from agent_service.core.metrics import CacheMetrics
from agent_service.core.settings import get_settings
from agent_service.core.store_metrics import STORES
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["close_redis", "get_redis_manager"]

_metrics = CacheMetrics()
"""Of the whole process, so that whoever polls them, in whatever loop or thread, sees every cache."""
_metrics.add_gauge("stores", STORES.snapshot)

_managers: dict[asyncio.AbstractEventLoop, RedisManager] = {}
_lock = threading.Lock()
_inherited: list[dict[asyncio.AbstractEventLoop, RedisManager]] = []


async def get_redis_manager() -> RedisManager:
    """Give this event loop's manager; the same one every time until :func:`close_redis`.

    Opens no connection, so it works while Redis is down. Managers of closed loops are forgotten. A forked process
    starts with none.

    :raises ConfigurationError: when REDIS_URL cannot be used.
    """
    loop = asyncio.get_running_loop()
    manager = _managers.get(loop)
    if manager is None or manager.closed:
        manager = _create(loop)
    return manager


def _create(loop: asyncio.AbstractEventLoop) -> RedisManager:
    settings = get_settings()
    url = settings.redis_url.get_secret_value() if settings.redis_url is not None else None
    manager = RedisManager(url, prefix=settings.cache_key_prefix, timeout=settings.redis_timeout, metrics=_metrics)
    with _lock:
        for other in [each for each in _managers if each.is_closed()]:
            del _managers[other]
        _managers[loop] = manager
    return manager


async def close_redis() -> None:
    """Close this event loop's manager, if there is one; the next :func:`get_redis_manager` makes a new one."""
    with _lock:
        manager = _managers.pop(asyncio.get_running_loop(), None)
    if manager is not None:
        await manager.aclose()


def _forget_parent() -> None:
    """The parent's managers stay referenced, so that no finaliser here touches the sockets it still uses."""
    global _managers, _lock
    _inherited.append(_managers)
    _managers = {}
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)
