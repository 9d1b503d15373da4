"""agent_service on each of its backends."""

import asyncio
import math
from typing import Any, Self

from agent_service.core.breaker import CircuitBreaker
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options, Staleness, Store

__all__ = ["OURS", "Ours", "OursFallback", "OursFallbackDown", "OursMemory", "OursRedis", "OursTiered"]

BREAKER_SECONDS = 0.1
MAX_STALENESS = 0.3
"""Seconds; short ones, so that a probe need not wait long."""


class Ours(Adapter):
    """``@cached`` over a cache."""

    cache: Any

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        chosen: dict[str, Any] = {"lock": "distributed"} if options.one_process else {}
        if options.tag:
            chosen["tags"] = [options.tag]
        return self.decorate(function, ttl=options.ttl, cache_none=options.cache_none, **chosen)

    def decorate(self, function: Function, **options: Any) -> Function:
        """Decorate with any options of ``@cached``."""
        return cached(cache=self.cache, **options)(function)

    async def invalidate(self, function: Any, *args: object) -> None:
        await function.invalidate(*args)

    async def invalidate_tag(self, tag: str) -> None:
        await self.cache.invalidate_tags([tag])

    def stale_served(self, function: Function, staleness: Staleness) -> list[Function]:
        decorated = self.decorate(
            function,
            ttl=staleness.ttl,
            stale_for=staleness.stale_for,
            soft_timeout=staleness.soft_timeout,
            hard_timeout=staleness.hard_timeout,
            refresh_at=staleness.refresh_at,
            jitter=0,
        )
        return [decorated]

    async def __aexit__(self, *_: object) -> None:
        await self.cache.aclose()


class OursMemory(Ours):
    """``InMemoryCache``."""

    name = "ours memory"
    features = frozenset({Feature.ASYNC, Feature.TAGS})

    async def __aenter__(self) -> Self:
        self.cache = InMemoryCache(200_000)
        return self


class OursOnServer(Ours):
    """What has a client of its own."""

    async def __aenter__(self) -> Self:
        self.client = RedisClient(self.url, timeout=1)
        self.cache = self._open(self.client)
        return self

    def _open(self, client: RedisClient) -> Any:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        await self.cache.aclose()
        await self.client.aclose()


class OursRedis(OursOnServer):
    """``RedisCache``, which hands an outage on to its caller."""

    name = "ours redis"
    features = frozenset({Feature.ASYNC, Feature.SERVER, Feature.TAGS})

    def _open(self, client: RedisClient) -> Any:
        return RedisCache[Any](client)


class OursFallback(OursOnServer):
    """``FallbackCache``: memory while Redis does not serve, as ``get_cache`` gives it."""

    name = "ours fallback"
    features = frozenset({Feature.ASYNC, Feature.SERVER, Feature.TAGS})

    def _open(self, client: RedisClient) -> Any:
        self._outage = Outage(client, CircuitBreaker(BREAKER_SECONDS, max_open_seconds=BREAKER_SECONDS), Journal(1000))
        return FallbackCache[Any](RedisCache[Any](client), InMemoryCache[Any](100_000), self._outage)

    async def __aexit__(self, *_: object) -> None:
        await self._outage.aclose()
        await super().__aexit__()


class OursTiered(OursFallback):
    """``TieredCache`` over a ``FallbackCache``, as ``get_cache`` gives it with CACHE_L1_ENABLED."""

    name = "ours tiered"
    features = frozenset({Feature.ASYNC, Feature.SERVER, Feature.L1, Feature.TAGS})
    listening = 1

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        async with asyncio.timeout(5):
            while self._feed.clock() == math.inf:
                await asyncio.sleep(0.001)
        return self

    def _open(self, client: RedisClient) -> Any:
        self._feed = NearFeed(client, max_staleness=MAX_STALENESS)
        return TieredCache[Any](super()._open(client), self._feed, max_entries=100_000)

    async def __aexit__(self, *_: object) -> None:
        await self._feed.aclose()
        await super().__aexit__()


class OursFallbackDown(OursFallback):
    """``FallbackCache`` over a Redis that is down from the start."""

    name = "ours down"
    features = frozenset({Feature.ASYNC, Feature.TAGS})

    def __init__(self, url: str, store: Store) -> None:  # noqa: ARG002 - nobody listens where it looks
        super().__init__("redis://127.0.0.1:1/0", store)


OURS: tuple[type[Adapter], ...] = (OursMemory, OursRedis, OursTiered, OursFallback, OursFallbackDown)
