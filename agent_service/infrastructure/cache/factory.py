"""The caches of this process, made from the settings."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from agent_service.core.breaker import CircuitBreaker
from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.keys import normalise_namespace
from agent_service.core.loop_registry import LoopRegistry
from agent_service.core.measured import Sample, measured_by
from agent_service.core.processes import several_processes
from agent_service.core.settings import Settings, get_settings
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.leases import LeaseBook
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.cache.table import MemoryStore
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["Opened", "close_cache", "forget_memory", "get_cache", "open_cache", "opened"]

logger = logging.getLogger("agent_service.cache")


@dataclass
class _SharedMemory:
    """What the handles of one namespace share in this process, whatever their event loop.

    It is never replaced, only emptied: a handle that outlives :func:`close_cache` still sees every invalidation.
    """

    store: MemoryStore
    leases: LeaseBook = field(default_factory=LeaseBook)


@dataclass
class _Caches:
    """The handles of one event loop over one Redis manager."""

    manager: RedisManager
    outage: Outage | None
    handles: dict[tuple[str, bool], BaseCache[Any]] = field(default_factory=dict)
    feed: NearFeed | None = None

    async def aclose(self) -> None:
        await asyncio.gather(*(handle.aclose() for handle in self.handles.values()))
        if self.feed is not None:
            await self.feed.aclose()
        if self.outage is not None:
            await self.outage.aclose()


_shared: dict[str, _SharedMemory] = {}
_caches: Final = LoopRegistry[_Caches]()
_warned = False
"""Whether this process has said that other processes do not share its caches."""


async def get_cache(namespace: str = "", *, l1: bool | None = None) -> ICache[Any]:
    """Return the cache of a namespace: the same handle for every call on one event loop.

    With REDIS_URL set it is Redis, with memory in its place while Redis does not serve; it works when Redis is down
    at the start, dies later, and comes back. With REDIS_URL unset it is memory, shared by the event loops of this
    process. No connection is made here.

    :param namespace: keeps keys apart; "" and "default" are the default one.
    :param l1: whether copies of Redis entries are kept in memory (see
        :class:`~agent_service.infrastructure.cache.near.cache.TieredCache`); None: as CACHE_L1_ENABLED says.
    :raises ConfigurationError: when a setting cannot be used.
    :raises CacheKeyError: when the namespace cannot be used.
    """
    return await open_cache(namespace, l1=l1)


class Opened(NamedTuple):
    """What :func:`get_cache` gives, and what that depends on."""

    cache: BaseCache[Any]
    loop: asyncio.AbstractEventLoop
    manager: RedisManager
    settings: Settings


async def opened(namespace: str) -> Opened:
    """:func:`get_cache` for who keeps the cache, for as long as the rest of what is returned stays as it is."""
    settings = get_settings()
    cache = await open_cache(namespace)
    return Opened(cache, asyncio.get_running_loop(), await get_redis_manager(), settings)


async def open_cache(namespace: str, *, l1: bool | None = None) -> BaseCache[Any]:
    """:func:`get_cache` for who uses more of a cache than its contract."""
    name = normalise_namespace(namespace)
    caches = _caches.find()
    if caches is None or caches.manager.closed:  # without close_cache()
        caches = _caches.put(_open(await get_redis_manager(), get_settings()))
    near = (get_settings().cache_l1_enabled if l1 is None else l1) and caches.outage is not None
    handle = caches.handles.get((name, near))
    if handle is None:
        handle = _make_near(name, caches) if near else _make(name, caches.manager, caches.outage, get_settings())
        caches.handles[name, near] = handle
    return handle


def _make_near(name: str, caches: _Caches) -> BaseCache[Any]:
    settings, manager = get_settings(), caches.manager
    if caches.feed is None:
        caches.feed = NearFeed(
            manager.client, prefix=settings.cache_key_prefix, max_staleness=settings.cache_l1_max_staleness
        )
        manager.metrics.add_gauge("l1", caches.feed.state)
    far = caches.handles.get((name, False))
    if far is None:
        far = caches.handles[name, False] = _make(name, manager, caches.outage, settings)
    assert isinstance(far, FallbackCache)
    return TieredCache(far, caches.feed, max_entries=settings.cache_memory_max_size)


def _open(manager: RedisManager, settings: Settings) -> _Caches:
    if not manager.is_configured:
        _say_what_is_not_shared()
        return _Caches(manager, None)
    breaker = CircuitBreaker(settings.cache_breaker_open_seconds)
    outage = Outage(manager.client, breaker, Journal(settings.cache_journal_max), prefix=settings.cache_key_prefix)
    manager.metrics.add_gauge("breaker", outage.state)
    manager.metrics.add_gauge("denied", outage.denied)
    manager.metrics.add_gauge("journal_length", outage.journal.__len__)
    manager.metrics.add_gauge("journal_bytes", lambda: outage.journal.bytes)
    manager.metrics.add_gauge("journal_collapsed", lambda: outage.journal.collapsed)
    return _Caches(manager, outage)


def _make(name: str, manager: RedisManager, outage: Outage | None, settings: Settings) -> BaseCache[Any]:
    shared = _shared.get(name)
    if shared is None:  # setdefault, because another thread may be doing the same
        store = MemoryStore(settings.cache_memory_max_size, monotonic=SYSTEM_CLOCK.monotonic)
        shared = _shared.setdefault(name, _SharedMemory(store))
    shared.store.resize(settings.cache_memory_max_size)
    memory: InMemoryCache[Any] = InMemoryCache(
        namespace=name,
        default_ttl=settings.cache_default_ttl,
        metrics=manager.metrics,
        store=shared.store,
        leases=shared.leases,
    )
    if outage is None:
        return memory
    redis: RedisCache[Any] = RedisCache(
        manager.client,
        prefix=settings.cache_key_prefix,
        namespace=name,
        default_ttl=settings.cache_default_ttl,
        lease_seconds=settings.cache_lease_seconds,
        metrics=manager.metrics,
        leases=shared.leases,
    )
    return FallbackCache(redis, memory, outage)


def _samples() -> Iterator[Sample]:
    """Yield the entries in memory, and how many event loops have each state of outage handling."""
    for namespace, shared in _shared.copy().items():
        yield Sample("cache_entries", len(shared.store), (namespace,))
    outages = [caches.outage for _, caches in _caches.items() if caches.outage is not None]
    for state, count in Counter(each.state() for each in outages).items():
        yield Sample("cache_breaker", count, (state,))
    if outages:
        yield Sample("cache_journal_length", sum(len(each.journal) for each in outages))
        yield Sample("cache_journal_bytes", sum(each.journal.bytes for each in outages))
        yield Sample("cache_journal_collapsed", sum(each.journal.collapsed for each in outages))
        yield Sample("cache_denied", int(any(each.denied() is not None for each in outages)))
    feeds = [caches.feed for _, caches in _caches.items() if caches.feed is not None]
    for tracking, count in Counter(each.state() for each in feeds).items():
        yield Sample("cache_l1", count, (tracking,))


measured_by("cache", _samples)


async def close_cache() -> None:
    """End this event loop's caches: their loads, a recovery under way, and the Redis connections.

    What is in memory is emptied with the last event loop of the process that uses it. The next :func:`get_cache` starts
    anew, with the settings of then.
    """
    caches = _caches.pop()
    if caches is not None:
        await caches.aclose()
    if all(others.manager.closed for _, others in _caches.items()):
        for shared in _shared.copy().values():
            shared.store.clear()
    await close_redis()


def forget_memory() -> None:
    """Have the namespaces of this process begin with tables of their own again. For tests, when no cache is open."""
    for shared in _shared.values():
        shared.store.clear()
    _shared.clear()


def _say_what_is_not_shared() -> None:
    global _warned
    evidence = several_processes()
    if evidence is None or _warned:
        logger.info("REDIS_URL is not set: caches live in this process's memory")
    else:
        _warned = True
        logger.warning(
            "REDIS_URL is not set and there are several processes (%s): each has a cache of its own, and after an "
            "invalidation in one of them the others serve what they cached until its TTL is over; set REDIS_URL to "
            "share one cache", evidence,
        )  # fmt: skip
