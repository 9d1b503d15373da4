"""What stands for one process in the fault runs: a client, an outage and caches of its own, made as get_cache does."""

import time
from typing import Any

from agent_service.core.breaker import CircuitBreaker
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.fallback.pending import PendingOperations
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["LEASE_SECONDS", "AnyCache", "Process"]

AnyCache = FallbackCache[Any] | TieredCache[Any]

LEASE_SECONDS = 0.5


class NotedBreaker(CircuitBreaker):
    """Notes when it opens and closes."""

    outages = 0
    closed_at = 0.0

    def failed(self, *, again: bool = False) -> bool:
        opened = super().failed(again=again)
        self.outages += opened
        return opened

    def close(self) -> None:
        super().close()
        self.closed_at = time.monotonic()


class NotedJournal(Journal):
    """Counts what was taken out to be replayed, for good."""

    replayed = 0

    def take(self) -> dict[str, PendingOperations]:
        pending = super().take()
        self.replayed += sum(map(len, pending.values()))
        return pending

    def give_back(self, pending: dict[str, PendingOperations]) -> None:
        self.replayed -= sum(map(len, pending.values()))
        super().give_back(pending)


class Process:
    """One of the processes that share a Redis.

    :param url: the way to Redis of this process.
    :param timeout: seconds for one operation, as REDIS_TIMEOUT.
    :param max_staleness: as CACHE_L1_MAX_STALENESS.
    """

    def __init__(self, url: str, *, timeout: float, max_staleness: float) -> None:
        self.client = RedisClient(url, timeout=timeout)
        self.breaker = NotedBreaker(0.05, max_open_seconds=0.4)
        self.journal = NotedJournal()
        self.outage = Outage(self.client, self.breaker, self.journal)
        self.feed = NearFeed(self.client, max_staleness=max_staleness)
        self.far = self._fallback("far")
        self.near: TieredCache[Any] = TieredCache(self._fallback("near"), self.feed)
        self.far_counters = self._fallback("far-counters")
        self.near_counters: TieredCache[Any] = TieredCache(self._fallback("near-counters"), self.feed)
        self.outside: TieredCache[Any] = TieredCache(self._fallback("outside"), self.feed)
        """Read here only; somebody who has a way of his own to Redis writes."""

    def _fallback(self, namespace: str) -> FallbackCache[Any]:
        redis: RedisCache[Any] = RedisCache(self.client, namespace=namespace, lease_seconds=LEASE_SECONDS)
        return FallbackCache(redis, InMemoryCache(namespace=namespace), self.outage)

    @property
    def caches(self) -> list[AnyCache]:
        return [self.far, self.near, self.far_counters, self.near_counters, self.outside]

    def left(self) -> dict[str, int]:
        """Count what must be nothing when no call runs and Redis serves."""
        return {
            "loads": sum(len(each.flights) for each in self.caches),
            "leases": sum(len(each.leases) for each in self.caches),
            "operations owed": len(self.journal),
            "changes that may be sent again": len(self.journal.changes),
            "reads that would leave a copy": sum(
                len(each.backend.near._leases) for each in self.caches if isinstance(each, TieredCache)
            ),
            "refreshes": sum(len(each.loading._refreshing) for each in self.caches),
        }

    async def aclose(self) -> None:
        for each in self.caches:
            await each.aclose()
        await self.feed.aclose()
        await self.outage.aclose()
        await self.client.aclose()
