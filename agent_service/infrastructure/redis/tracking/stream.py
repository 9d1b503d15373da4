"""A coherent stream of invalidations: which keys of Redis changed, and until when copies of the others may be served.

The server pushes the name of every key that changes, whatever client changed it (CLIENT TRACKING in broadcast mode over
RESP3). Copies of values can be trusted because of the proof that no push is missing:

* **A heartbeat is the proof.** It is sent at time t, on the connection that brings the pushes. Its reply proves that
  everything the server had executed before t was pushed and received. So copies may be served until t +
  ``max_staleness``, and no longer. When no reply comes, for whatever reason, trust runs out by itself.
* **A heartbeat travels alone.** The server pushes at the end of each turn of its event loop, so within one turn a reply
  may overtake a push. A heartbeat that is sent after a write was executed is read in a later turn than the write,
  unless an earlier command had made the server read from this connection in that very turn. So no other command may be
  under way on the connection.
* **Trust comes back after a flush.** When pushes may have been missed, all copies are dropped first: after the loss of
  a connection, after a change of the primaries, and when a prefix is tracked that was not tracked before.
* **The database is still the same.** SWAPDB pushes nothing. So each heartbeat also proves that the database holds our
  mark, and has held it since the previous heartbeat.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from agent_service.core.backoff import Backoff
from agent_service.core.errors import ConfigurationError, RedisCommandError, RedisOperationError
from agent_service.core.keys import internal_key
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.errors import is_translatable, translate
from agent_service.infrastructure.redis.tracking.primaries import find_primaries
from agent_service.infrastructure.redis.tracking.push_connection import PushConnector
from agent_service.infrastructure.redis.tracking.watch import Watch
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["InvalidationStream", "TrackingState"]

logger = logging.getLogger("agent_service.redis")

_HEARTBEATS: Final = 3
"""Heartbeats within ``max_staleness``, so that trust survives some that are late."""
_DOWN_PAUSES: Final = (0.05, 1.0)
"""The first and the longest pause, in seconds, before a lost stream begins again."""
_UNSUPPORTED_PAUSES: Final = (1.0, 60.0)


class TrackingState(StrEnum):
    """The state of a stream."""

    CONNECTING = "connecting"
    """Nothing is known yet."""
    LIVE = "live"
    """Invalidations arrive."""
    DOWN = "down"
    """The server cannot be reached or cannot serve; tried again at once, then with growing pauses of up to a second."""
    UNSUPPORTED = "unsupported"
    """The server refuses or pushes nothing; tried again with growing pauses of up to a minute."""
    CLOSED = "closed"
    """:meth:`InvalidationStream.aclose` was called."""


class InvalidationStream:
    """Calls back with the keys that have changed, and says until when copies of the others may be served.

    It belongs to the event loop that starts it. Callbacks are synchronous and run on that loop in the order of the
    stream. An exception of a callback is logged and handled like the loss of a connection. A stream costs one
    connection to each primary, with two round trips three times within each ``max_staleness``; sentinels are asked for
    their master as often.

    No copy is served that has been outdated for more than ``max_staleness``, if the cache that holds it

    * registers the key before it reads it from Redis;
    * drops registration and copy when the key is invalidated or all is flushed;
    * stores what was read only if the registration is still there;
    * serves the copy only while ``time.monotonic() < trusted_until``.

    After a failover that bound counts from the moment at which the other primaries of a cluster, or the sentinel that
    answers, know of it.

    :param target: where Redis is.
    :param write: runs commands on that Redis on the way on which values are written, to prove that pushes arrive for
        them. It raises our own errors only.
    :param prefix: the first component of the package's own keys, for that proof.
    :param is_served: tells whether commands reach that Redis; where they do not, its client logs an outage.
    :param on_invalidate: called with the keys that were changed, deleted or expired, whatever their database.
    :param on_flush: called when any key may have changed.
    :param max_staleness: seconds for which copies may be served after the latest proof.
    :param timeout: seconds to wait for an answer, if that is longer than ``max_staleness``.
    :raises ConfigurationError: for a ``max_staleness`` that is no finite number above 0.
    """

    def __init__(
        self,
        target: RedisTarget,
        write: Callable[[Sequence[Command]], Awaitable[Any]],
        *,
        is_served: Callable[[], Awaitable[bool]],
        prefix: str,
        on_invalidate: Callable[[Sequence[bytes]], None],
        on_flush: Callable[[], None],
        max_staleness: float = 1.0,
        timeout: float = 0.5,
    ) -> None:
        if not 0 < max_staleness < math.inf:
            raise ConfigurationError(f"max_staleness must be a finite number of seconds above 0, got {max_staleness!r}")
        self.trusted_until = 0.0
        """On the scale of ``time.monotonic()``: copies may be served before it."""
        self.state = TrackingState.CONNECTING
        self.reconnects = 0
        """How often it has become live again."""
        self.invalidations = 0
        """How many keys were pushed."""
        self.max_staleness = max_staleness
        self._target = target
        self._write = write
        self._is_served = is_served
        self._on_invalidate = on_invalidate
        self._on_flush = on_flush
        self._told = False
        """Whether the log says that pushes do not arrive, or cannot be followed."""
        self._patience = max(max_staleness, timeout)
        self._connector = PushConnector(target)
        self._primaries = find_primaries(target, self._connector, timeout=timeout)
        self._probe_prefix = internal_key(prefix, "probe", "")
        self._prefixes = frozenset({self._probe_prefix})
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def supported(self) -> bool:
        """Whether the server supports what is needed, as far as is known."""
        return self.state is not TrackingState.UNSUPPORTED

    def add_prefix(self, prefix: bytes) -> None:
        """Watch the keys that begin with a prefix, too. No copy is trusted until the server watches them.

        All is flushed then, because such keys may have been read before. A prefix that is watched already is ignored.

        :raises ConfigurationError: when one of it and a watched prefix begins with the other; servers refuse that.
        """
        if prefix in self._prefixes:
            return
        for other in self._prefixes:
            covers_probes = other == self._probe_prefix and other.startswith(prefix)
            if not covers_probes and (prefix.startswith(other) or other.startswith(prefix)):
                raise ConfigurationError(f"the prefix {prefix!r} overlaps with {other!r}, which is watched already")
        self._prefixes = frozenset([each for each in self._prefixes if not each.startswith(prefix)]) | {prefix}
        self._distrust()

    def start(self) -> None:
        """Start, on the running event loop. Calling it again, or after :meth:`aclose`, does nothing."""
        if self._task is None and self.state is not TrackingState.CLOSED:
            self._task = asyncio.create_task(self._supervise(), name="redis-invalidations")

    async def aclose(self) -> None:
        """End all trust and close the connections. Calling it again does nothing."""
        self.state = TrackingState.CLOSED
        self._distrust()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _supervise(self) -> None:
        attempt = 0
        try:
            while self.state is not TrackingState.CLOSED:
                try:
                    await self._follow()
                except Exception as exc:  # noqa: BLE001 - any error is logged, and the stream begins again
                    attempt = attempt + 1 if await self._note_failure(exc) else 0
                pauses = Backoff(*(_DOWN_PAUSES if self.supported else _UNSUPPORTED_PAUSES))
                await asyncio.sleep(pauses.pause(attempt))
        finally:
            with suppress(RedisError, OSError):  # of a sentinel that hangs or is gone
                await self._primaries.aclose()

    async def _follow(self) -> None:
        """Follow the invalidations until something fails."""
        watch = Watch(self._primaries, await self._primaries.find(), patience=self._patience)

        def take(push: list[Any]) -> None:
            if push[0] == b"invalidate":
                self._take(push[1])
                watch.saw(push[1] or ())

        try:
            async with watch.connected(self._connector, take, self._distrust):
                await watch.mark(self._probe_prefix)
                await self._track(watch)
                await watch.prove_pushes(self._probe_prefix, self._write)
                while True:
                    await self._beat(watch)
        finally:
            self._distrust()
            self._on_flush()

    def _take(self, keys: list[bytes] | None) -> None:
        if keys is None:
            self._on_flush()
        else:
            self.invalidations += len(keys)
            self._on_invalidate(keys)

    async def _track(self, watch: Watch) -> None:
        if not watch.tracked <= self._prefixes:
            raise RedisConnectionError("a prefix that was added covers one that is watched")
        if watch.tracked != self._prefixes:
            await watch.track(self._prefixes)
            self._on_flush()

    async def _beat(self, watch: Watch) -> None:
        self._wake.clear()
        await self._track(watch)
        sent = time.monotonic()
        if not await watch.beat():
            await watch.mark(self._probe_prefix)
            self._on_flush()
        if watch.intact and watch.tracked == self._prefixes:
            self.trusted_until = sent + self.max_staleness
            self._note_live()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.max_staleness / _HEARTBEATS):
                await self._wake.wait()

    def _distrust(self) -> None:
        self.trusted_until = 0.0
        self._wake.set()

    def _note_live(self) -> None:
        if self.state is TrackingState.LIVE:
            return
        if self.state is not TrackingState.CONNECTING:
            self.reconnects += 1
        if self._told:
            self._told = False
            logger.info("Invalidations arrive again (%s)", self._target)
        self.state = TrackingState.LIVE

    async def _note_failure(self, failure: Exception) -> bool:
        """Log what is no outage, once; return whether the state was the same before."""
        if not isinstance(failure, RedisOperationError):
            if not is_translatable(failure):
                logger.error("Following invalidations failed (%s)", self._target, exc_info=failure)
            failure = translate(failure, sent=False)
        if self.state is TrackingState.CLOSED:
            return True
        refused = isinstance(failure, RedisCommandError)
        before = self.state
        self.state = TrackingState.UNSUPPORTED if refused else TrackingState.DOWN
        if refused:
            if self.state is not before:
                self._tell("Invalidations cannot be followed", failure)
        elif before is not TrackingState.LIVE and not self._told and await self._is_served():
            self._tell("Invalidations do not arrive", failure)
        return self.state is before

    def _tell(self, consequence: str, failure: Exception) -> None:
        self._told = True
        logger.warning("%s, so no copy of a value is trusted: %s (%s)", consequence, failure, self._target)
