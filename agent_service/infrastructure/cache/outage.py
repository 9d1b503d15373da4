"""Getting through an outage of Redis: notice it, write down what Redis misses, try again, pay the debts, serve again.

One :class:`Outage` serves all caches of an event loop. Nothing runs while Redis is well: an operation that fails opens
the breaker, and an operation that finds the wait over starts the one task that probes and replays. The step from "the
journal is empty" to "closed" has no await in it, so no debt can be written down and then overlooked.
"""

import asyncio
from itertools import islice

from agent_service.core.breaker import BreakerState, CircuitBreaker
from agent_service.core.errors import CacheValueError, RedisOperationError, RedisUnavailableError
from agent_service.core.logging import logger
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.journal import Debt, Journal
from agent_service.infrastructure.cache.store import MemoryStore
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["Outage"]

REPLAY_BATCH = 500


class Outage:
    """Breaker, journal and recovery of the caches of one event loop over one Redis."""

    def __init__(self, client: RedisClient, breaker: CircuitBreaker, journal: Journal) -> None:
        self._client = client
        self._caches: dict[str, tuple[Backend, MemoryStore]] = {}
        self._recovery: asyncio.Task[None] | None = None
        self.breaker = breaker
        self.journal = journal

    def protect(self, namespace: str, redis: Backend, memory: MemoryStore) -> None:
        """Take a namespace in: its debts are replayed against ``redis``, and ``memory`` is emptied after an outage."""
        self._caches[namespace] = (redis, memory)

    def failed(self, exc: RedisOperationError) -> None:
        """Record that an operation failed. Whatever Redis misses by it must be in the journal already."""
        if self.breaker.failed():
            logger.warning("Redis does not serve; caches use memory until it does: %s", exc)

    def serve_from_memory(self) -> None:
        """Say that an operation is about to use memory; starts the recovery when it is time to try."""
        if self.breaker.try_probe():
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def aclose(self) -> None:
        """Stop a recovery that is under way. Debts that were not paid are lost, and a warning says how many."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        if len(self.journal):
            logger.warning("closing with %d invalidations that Redis never received", len(self.journal))

    async def _recover(self) -> None:
        try:
            await self._client.ping()
            self.breaker.probe_succeeded()
            replayed = 0
            while len(self.journal):
                replayed += await self._replay(self.journal.take())
        except BaseException as exc:
            self.breaker.attempt_failed()
            if isinstance(exc, RedisOperationError):
                return
            raise
        for _, memory in self._caches.values():
            memory.clear()
        self.breaker.close()
        logger.info("Redis serves again; %d operations replayed", replayed)

    async def _replay(self, debts: dict[str, Debt]) -> int:
        total = sum(map(len, debts.values()))
        try:
            for namespace, debt in debts.items():
                await _pay(self._caches[namespace][0], debt)
        except BaseException:
            self.journal.give_back(debts)
            raise
        return total

    def state(self) -> BreakerState:
        """The breaker's state, for metrics."""
        return self.breaker.state


async def _pay(redis: Backend, debt: Debt) -> None:
    """Invalidate, then add. What was paid leaves the debt at once; an increment of unknown outcome is not repeated."""
    for pattern in list(debt.patterns):
        await redis.remove_matching(pattern)
        del debt.patterns[pattern]
    while debt.stale:
        batch = list(islice(debt.stale, REPLAY_BATCH))
        await redis.remove(batch)
        for key in batch:
            del debt.stale[key]
    for key, (amount, seconds) in list(debt.added.items()):
        try:
            await redis.add(key, amount, seconds)
        except CacheValueError:
            logger.warning("a counter that was incremented during the outage is no integer in Redis; it stays as it is")
        except RedisUnavailableError as exc:
            if exc.maybe_executed:
                del debt.added[key]
            raise
        del debt.added[key]
