"""Getting through an outage of Redis: notice it, write down what Redis misses, try again, pay the debts, serve again.

One :class:`Outage` serves all caches of an event loop. Nothing runs while Redis is well: an operation that fails opens
the breaker, and an operation that finds the wait over starts the one task that probes and replays. The step from "the
journal is empty" to "closed" has no await in it, so no debt can be written down and then overlooked.

Where more is written than can be replayed meanwhile the journal would never be empty. So after the first replay writes
wait for the end of the recovery, none longer than an operation on Redis may take. A pass over all keys of Redis takes
longer than that: after :data:`PASSES` replays a namespace that is owed patterns is cleared instead.

An invalidation that too few replicas have confirmed (REDIS_WAIT_REPLICAS) is done, and is undone when one of them takes
over. It is written into the journal too, and sent again until they have confirmed it, while Redis serves.

What the server denies to this user takes the same steps; see :mod:`agent_service.infrastructure.cache.fallback.denied`.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.breaker import BreakerState, CircuitBreaker
from agent_service.core.errors import RedisDeniedError, RedisOperationError, RedisUnreplicatedError
from agent_service.core.logging import logger
from agent_service.infrastructure.cache.fallback.denied import Denial
from agent_service.infrastructure.cache.fallback.journal import Debt, Journal
from agent_service.infrastructure.cache.fallback.replay import pay
from agent_service.infrastructure.cache.redis.cache import RedisBackend
from agent_service.infrastructure.cache.table import MemoryStore
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["PASSES", "Outage"]

PASSES: Final = 3
"""Replays of one recovery in which patterns take a pass over the keys of Redis."""

_CONFIRMING_PAUSES: Final = Backoff(0.1, 1.0)
"""Before an invalidation that was not confirmed is sent again."""


class Outage:
    """Breaker, journal and recovery of the caches of one event loop over one Redis.

    :param prefix: first component of every physical key.
    """

    def __init__(
        self, client: RedisClient, breaker: CircuitBreaker, journal: Journal, *, prefix: str = "agent_service"
    ) -> None:
        self._client = client
        self._caches: dict[str, tuple[RedisBackend, MemoryStore]] = {}
        self._recovery: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._writes_may_go_on = asyncio.Event()
        self._writes_may_go_on.set()
        self._closed = False
        self.breaker = breaker
        self.journal = journal
        self.denial = Denial(client, prefix, journal.monotonic)

    def protect(self, namespace: str, redis: RedisBackend, memory: MemoryStore) -> None:
        """Take a namespace in: its debts are replayed against ``redis``, and ``memory`` is emptied after an outage."""
        self._caches[namespace] = (redis, memory)

    @property
    def caught_up(self) -> bool:
        """Whether Redis serves and every invalidation has reached it, and as many replicas as were asked for."""
        return self.breaker.closed and self._confirming is None

    def unreplicated(self, exc: RedisUnreplicatedError) -> None:
        """Record that an invalidation, which is in the journal, was not confirmed by as many replicas as were asked."""
        if self._confirming is None and not self._closed:
            logger.warning("%s; it is sent again until they have, and a failover may undo it until then", exc)
        self._confirm()

    def _confirm(self) -> None:
        if self._confirming is None and not self._closed:
            self._confirming = asyncio.get_running_loop().create_task(self._send_again())

    async def _send_again(self) -> None:
        repeats = 0
        try:
            while len(self.journal):
                await asyncio.sleep(_CONFIRMING_PAUSES.pause(repeats))
                repeats += 1
                if not self.breaker.closed:  # then the recovery replays all there is
                    return
                _, unconfirmed = await self._replay(self.journal.take())
                self.journal.give_back(unconfirmed)
        except RedisOperationError as exc:
            self.failed(exc)
        else:
            logger.info("As many replicas as were asked for have confirmed every invalidation")
        finally:
            self._confirming = None
            if len(self.journal) and self.breaker.closed:
                self._confirm()

    def failed(self, exc: RedisOperationError) -> None:
        """Record that an operation failed. What Redis misses by it is in the journal before another task runs."""
        if isinstance(exc, RedisDeniedError):
            self._was_denied(exc)
        elif self.breaker.failed():
            logger.warning("Redis does not serve; caches use memory until it does: %s", exc)

    def _was_denied(self, exc: RedisDeniedError) -> None:
        if not self.breaker.closed:
            return
        self.journal.brief = True
        again = self.denial.begin(exc)
        self.breaker.failed(again=again)
        if not again and self.breaker.try_probe(at_once=True):  # so that all that is missing is known
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    def serve_from_memory(self) -> None:
        """Say that an operation is about to use memory; starts the recovery when it is time to try."""
        if self.breaker.try_probe():
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def give_way(self) -> None:
        """Wait, before a write, for a recovery that writes would keep from coming to its end."""
        if not self._writes_may_go_on.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._client.timeout):
                    await self._writes_may_go_on.wait()

    async def aclose(self) -> None:
        """Stop a recovery that is under way. Debts that were not paid are lost, and a warning says how many."""
        self._closed = True
        running = [each for each in (self._recovery, self._confirming) if each is not None]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if len(self.journal):
            logger.warning("closing with %d operations that Redis never received", len(self.journal))

    async def _stop_confirming(self) -> None:
        """Have what is being sent again in the journal, where a recovery finds it."""
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.wait({self._confirming})
            self._confirming = None

    async def _recover(self) -> None:
        unconfirmed: list[dict[str, Debt]] = []
        try:
            await self._stop_confirming()
            await self.denial.check()  # a server that refuses writes or scripts does not serve either
            await self._client.settle()
            self.breaker.probe_succeeded()
            replayed = passes = 0
            while len(self.journal):
                count, missing = await self._replay(self.journal.take(), in_haste=passes >= PASSES)
                replayed += count
                unconfirmed.append(missing)
                self._writes_may_go_on.clear()
                passes += 1
        except BaseException as exc:
            self.breaker.attempt_failed()
            self._give_back(unconfirmed)
            if not isinstance(exc, RedisOperationError):
                raise
            if isinstance(exc, RedisDeniedError) and self.denial.text is None:
                self.denial.begin(exc)
            self.journal.brief = self.denial.text is not None
            return
        finally:
            self._writes_may_go_on.set()
        for _, memory in self._caches.values():
            memory.clear()
        self.breaker.close()
        self.journal.brief = False
        self.denial.end()
        logger.info("Redis serves again; %d operations replayed", replayed)
        self._give_back(unconfirmed)
        if len(self.journal):
            self._confirm()

    def _give_back(self, unconfirmed: Iterable[dict[str, Debt]]) -> None:
        for missing in unconfirmed:
            self.journal.give_back(missing)

    async def _replay(self, debts: dict[str, Debt], *, in_haste: bool = False) -> tuple[int, dict[str, Debt]]:
        """Pay debts; return how many, and which too few replicas have confirmed."""
        total = sum(map(len, debts.values()))
        unconfirmed: dict[str, Debt] = {}
        try:
            await self._client.settle()  # what is owed may have been given up since, and must not arrive after this
            for namespace, debt in debts.items():
                missing = await pay(self._caches[namespace][0], debt, self.journal, in_haste=in_haste)
                if len(missing):
                    unconfirmed[namespace] = missing
        except BaseException:
            for namespace, missing in unconfirmed.items():
                debts[namespace].owe_again(missing)
            self.journal.give_back(debts)
            raise
        return total, unconfirmed

    def denied(self) -> str | None:
        """What the server denies, for metrics."""
        return self.denial.text

    def state(self) -> BreakerState:
        """The breaker's state, for metrics."""
        return self.breaker.state
