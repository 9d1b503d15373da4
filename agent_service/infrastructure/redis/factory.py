"""One manager per event loop and process: for the Redis of the settings, and for any other that loops share."""

import asyncio
from collections.abc import Iterator
from typing import Final, TypeAlias

from agent_service.core.loop_registry import LoopRegistry, run_on_their_loops
from agent_service.core.measured import Sample, measured_by
from agent_service.core.metrics import CacheMetrics
from agent_service.core.settings import get_settings
from agent_service.core.store_metrics import STORES
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.replication import Replication

__all__ = ["close_everywhere_else", "close_redis", "get_redis_manager", "redis_manager_like"]

_metrics = CacheMetrics()
"""Of the whole process, so that a poll on any loop or thread sees every cache."""
_metrics.add_gauge("stores", STORES.snapshot)

_Managers: TypeAlias = dict[RedisManager | None, RedisManager]

_managers: Final = LoopRegistry[_Managers]()
"""Each loop's managers, by the manager whose Redis they share; None: that of the settings."""
_PATIENCE: Final = 2.0
"""Seconds to wait for other loops to close their managers."""


def _samples() -> Iterator[Sample]:
    """Yield what caches and Redis count in this process, and the state of the clients of every event loop."""
    yield from _metrics.samples()
    managers = [each for _, made in _managers.items() for each in list(made.values())]
    clients = [each.client for each in managers if each.is_configured and not each.closed]
    if clients:
        yield Sample("redis_available", int(all(each.available is not False for each in clients)))
        yield Sample("redis_operations", sum(each.running for each in clients), ("running",))
        yield Sample("redis_operations", sum(each.waiting for each in clients), ("waiting",))


measured_by("redis", _samples)


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
    managers = _managers.get(dict)
    manager = managers.get(origin)
    if manager is None or manager.closed:
        manager = managers[origin] = _from_settings() if origin is None else origin.for_another_loop()
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
    managers = _managers.pop() or {}
    await asyncio.gather(*(each.aclose() for each in managers.values()))


async def close_everywhere_else(origin: RedisManager) -> None:
    """Close the managers that :func:`redis_manager_like` made of one, on every loop that runs, each on its own."""
    made = [(loop, managers.pop(origin, None)) for loop, managers in _managers.items()]
    await run_on_their_loops(
        [(loop, manager.aclose) for loop, manager in made if manager is not None], patience=_PATIENCE
    )
