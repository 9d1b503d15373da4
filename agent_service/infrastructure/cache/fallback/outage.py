"""Outage handling: detect, journal missed writes, probe, replay, resume.

One :class:`Outage` serves all caches of an event loop. While Redis is well nothing runs.

1. **Detect.** The first operation that fails opens the circuit breaker. From then on memory serves, and what Redis
   misses is recorded in the journal before memory is touched.
2. **Probe.** An operation that finds the breaker's wait over starts the one recovery task. It probes with a write, and
   has the server drop the connections whose commands may still arrive.
3. **Replay.** The task takes the journal out and replays it, until a replay leaves the journal empty. If Redis fails
   again, what is left goes back into the journal and the breaker opens for longer.
4. **Resume.** Memory is emptied and the breaker closes. The step from "the journal is empty" to "closed" has no await
   in it, so nothing can be recorded and then overlooked.

If more is written than can be replayed meanwhile, the journal would never become empty. So after the first replay
writes wait for the end of the recovery, none longer than an operation on Redis may take. A pass over all keys of Redis
takes longer than that: after :data:`PASSES` replays a namespace with pending patterns is cleared instead.

An invalidation that too few replicas have confirmed (REDIS_WAIT_REPLICAS) is made, but a failover may undo it. It is
recorded in the journal too, and sent again until enough replicas have confirmed it, while Redis serves.

What the server denies to this user takes the same steps; see :mod:`agent_service.infrastructure.cache.fallback.denied`.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.breaker import BreakerState, CircuitBreaker
from agent_service.core.errors import (
    RedisDeniedError,
    RedisOperationError,
    RedisUnavailableError,
    RedisUnreplicatedError,
)
from agent_service.infrastructure.cache.fallback.denied import Denial
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.pending import PendingOperations
from agent_service.infrastructure.cache.fallback.replay import replay
from agent_service.infrastructure.cache.redis.cache import RedisBackend
from agent_service.infrastructure.cache.table import MemoryStore
from agent_service.infrastructure.redis.client import RedisClient

__all__ = ["PASSES", "Outage"]

logger = logging.getLogger("agent_service.cache")

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
        self._refused = False
        """Whether the log says that Redis refuses to serve."""
        self.breaker = breaker
        self.journal = journal
        self.denial = Denial(client, prefix, journal.monotonic)

    def protect(self, namespace: str, redis: RedisBackend, memory: MemoryStore) -> None:
        """Add a namespace: what it misses is replayed against ``redis``, and ``memory`` is emptied after an outage."""
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
                self.journal.memory_is_empty()  # what was recorded as overwritten is in Redis
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
        else:
            self.breaker.failed()
            self._tell_refusal(exc)

    def _tell_refusal(self, exc: RedisOperationError) -> None:
        """Log once that Redis answers and does not serve; that it cannot be reached is logged by its client."""
        if not (self._refused or isinstance(exc, RedisUnavailableError) or self._client.availability.away):
            self._refused = True
            logger.warning("Redis refuses to serve; caches use memory until it does: %s", exc)

    def _was_denied(self, exc: RedisDeniedError) -> None:
        if not self.breaker.closed:
            return
        self.journal.clears_only = True
        again = self.denial.begin(exc)
        self.breaker.failed(again=again)
        if not again and self.breaker.try_probe(at_once=True):  # so that all that is missing is known
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    def serve_from_memory(self) -> None:
        """Note that an operation is about to use memory; start the recovery if it is time to try."""
        if self.breaker.try_probe():
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def wait_for_recovery(self) -> None:
        """Wait, before a write, for a recovery that further writes would prevent from ending."""
        if not self._writes_may_go_on.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._client.timeout):
                    await self._writes_may_go_on.wait()

    async def aclose(self) -> None:
        """Stop a recovery that is under way. What was not replayed is lost, and a warning says how much."""
        self._closed = True
        running = [each for each in (self._recovery, self._confirming) if each is not None]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if len(self.journal):
            logger.warning("closing with %d operations that Redis never received", len(self.journal))

    async def _stop_confirming(self) -> None:
        """Return what is being sent again to the journal, where a recovery finds it."""
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.wait({self._confirming})
            self._confirming = None

    async def _recover(self) -> None:
        unconfirmed: list[dict[str, PendingOperations]] = []
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
            self.journal.clears_only = self.denial.text is not None
            if not isinstance(exc, RedisDeniedError):
                self._tell_refusal(exc)
            return
        finally:
            self._writes_may_go_on.set()
        for _, memory in self._caches.values():
            memory.clear()
        self.journal.memory_is_empty()
        self.breaker.close()
        self.journal.clears_only = False
        self.denial.end()
        level = logging.INFO if self._refused else logging.DEBUG
        self._refused = False
        logger.log(level, "Caches use Redis again; %d operations replayed", replayed)
        self._give_back(unconfirmed)
        if len(self.journal):
            self._confirm()

    def _give_back(self, unconfirmed: Iterable[dict[str, PendingOperations]]) -> None:
        for missing in unconfirmed:
            self.journal.give_back(missing)

    async def _replay(
        self, taken: dict[str, PendingOperations], *, in_haste: bool = False
    ) -> tuple[int, dict[str, PendingOperations]]:
        """Replay what was taken out of the journal; return how much, and what too few replicas have confirmed."""
        total = sum(map(len, taken.values()))
        unconfirmed: dict[str, PendingOperations] = {}
        try:
            await self._client.settle()  # a command may have been given up since, and must not arrive after the replay
            for namespace, pending in taken.items():
                missing = await replay(self._caches[namespace][0], pending, self.journal, in_haste=in_haste)
                if len(missing):
                    unconfirmed[namespace] = missing
        except BaseException:
            for namespace, missing in unconfirmed.items():
                taken[namespace].restore(missing)
            self.journal.give_back(taken)
            raise
        return total, unconfirmed

    def denied(self) -> str | None:
        """What the server denies, for metrics."""
        return self.denial.text

    def state(self) -> BreakerState:
        """The breaker's state, for metrics."""
        return self.breaker.state
