"""One manager per event loop and process: of the settings' Redis, and of any other that loops share."""

import asyncio
import threading
from typing import Final, TypeAlias

from agent_service.core.forking import renew_after_fork
from agent_service.core.metrics import CacheMetrics
from agent_service.core.settings import get_settings
from agent_service.core.store_metrics import STORES
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.replication import Replication

__all__ = ["close_everywhere_else", "close_redis", "get_redis_manager", "redis_manager_like"]

_metrics = CacheMetrics()
"""Of the whole process, so that whoever polls them, in whatever loop or thread, sees every cache."""
_metrics.add_gauge("stores", STORES.snapshot)

_Managers: TypeAlias = dict[RedisManager | None, RedisManager]

_managers: dict[asyncio.AbstractEventLoop, _Managers] = {}
"""By loop, then by the manager whose Redis they share; None: that of the settings."""
_lock = threading.Lock()
_inherited: list[dict[asyncio.AbstractEventLoop, _Managers]] = []
_PATIENCE: Final = 2.0
"""Seconds that other loops have to close their managers, before these are left to them."""


async def get_redis_manager() -> RedisManager:
    """Return this event loop's manager; the same one every time until :func:`close_redis`.

    Opens no connection, so it works while Redis is down. Managers of closed loops are forgotten. A forked process
    starts with none.

    :raises ConfigurationError: when REDIS_URL cannot be used.
    """
    return _manager(None)


def redis_manager_like(origin: RedisManager) -> RedisManager:
    """Return this event loop's manager of the Redis that another loop's manager uses, until :func:`close_redis`.

    :raises RedisUnavailableError: when the origin's client was given, so that its address is not known.
    """
    return _manager(origin)


def _manager(origin: RedisManager | None) -> RedisManager:
    loop = asyncio.get_running_loop()
    found = _managers.get(loop)
    manager = None if found is None else found.get(origin)
    if manager is None or manager.closed:
        manager = _from_settings() if origin is None else origin.for_another_loop()
        with _lock:
            for other in [each for each in _managers if each.is_closed()]:
                del _managers[other]
            _managers.setdefault(loop, {})[origin] = manager
    return manager


def _from_settings() -> RedisManager:
    settings = get_settings()
    url = settings.redis_url.get_secret_value() if settings.redis_url is not None else None
    replicas = settings.redis_wait_replicas
    return RedisManager(
        url,
        prefix=settings.cache_key_prefix,
        timeout=settings.redis_timeout,
        metrics=_metrics,
        replication=Replication(replicas, settings.redis_wait_timeout) if replicas else None,
    )


async def close_redis() -> None:
    """Close this event loop's managers, if there are any, and what listens to Redis for their caches.

    The next :func:`get_redis_manager` makes a new one.
    """
    with _lock:
        managers = _managers.pop(asyncio.get_running_loop(), {})
    await asyncio.gather(*(each.aclose() for each in managers.values()))


async def close_everywhere_else(origin: RedisManager) -> None:
    """Close what :func:`redis_manager_like` made of a manager on every loop that runs, each on its own."""
    with _lock:
        made = [(loop, managers.pop(origin, None)) for loop, managers in _managers.items()]
    closing = []
    for loop, manager in made:
        if manager is None or not loop.is_running():
            continue
        work = manager.aclose()
        try:
            closing.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop)))
        except RuntimeError:  # the loop was closed just now
            work.close()
    if closing:
        await asyncio.wait(closing, timeout=_PATIENCE)


def _forget_parent() -> None:
    """The parent's managers stay referenced, so that no finaliser here touches the sockets it still uses."""
    global _managers, _lock
    _inherited.append(_managers)
    _managers = {}
    _lock = threading.Lock()


renew_after_fork(_forget_parent)
