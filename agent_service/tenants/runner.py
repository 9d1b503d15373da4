"""Fire triggers: sleep until one is due, claim it, and run its handler."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

from agent_service.core.errors import (
    ConfigurationError,
    RecordValueError,
    RedisCommandError,
    RedisDeniedError,
    RedisOperationError,
    RedisUnavailableError,
    RuntimeStateError,
)
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.notifications import StreamNotifications
from agent_service.tenants.base import check_ttl, current_redis
from agent_service.tenants.handlers import HANDLERS, WATCHERS, on_trigger
from agent_service.tenants.handling import TriggerHandling, end_tasks
from agent_service.tenants.keys import encode_component
from agent_service.tenants.schedule import LONGEST_SLEEP, TriggerSchedule

__all__ = ["TriggerRunner", "on_trigger"]

logger = logging.getLogger("agent_service.tenants")

_SHARE: Final = 10
"""The most triggers claimed of one tenant and action before the others have their turn."""
_REPORT_INTERVAL: Final = 10.0
"""Seconds between two checks for due actions that have no handler."""
_OUTAGE_PAUSE: Final = 0.5
"""Seconds between two tries while Redis does not serve."""
_MOST_SAID: Final = 1000
"""The most pairs of tenant and action that cannot be claimed and are logged, each once: their list may be hostile."""
_SPACING: Final = 0.01
"""Seconds between a check and the next one that a wake-up causes, so that a burst of wake-ups costs few checks."""


class TriggerRunner:
    """Calls the handlers of due triggers; run one in each worker process.

    ::

        async with TriggerRunner():
            await serve_forever()

    One of all runners claims a due trigger and holds it for ``lease`` seconds, renewed while the handler runs.
    When the handler returns, the trigger is done; when it raises, it is tried again after a growing pause, and after
    ``max_attempts`` it is dead: see ``RedisTrigger.dead()``. When a worker dies, its triggers are claimed again after
    their leases: handling is *at least once*. A replica of Redis that takes over may lack the latest changes:
    what was just set is lost then, what was just handled is handled again. A handler that blocks the event loop for a
    whole lease loses it.

    It sleeps until the next trigger is due, and is woken when any process sets one that is due earlier. An idle runner
    asks Redis twice in 10 seconds, on two connections. If a network or a failover loses a wake-up, a trigger is late by
    10 seconds at most.

    Redis may fail and come back meanwhile. At most 100 handlers run at once.

    :param tenants: fire only their triggers; None: those of all tenants.
    :param poll_interval: seconds between two checks while Redis cannot wake the runner: it refuses the commands for
        streams, the connection for it is down, or the runtime was given a client without a URL.
    :param lease: seconds after which another worker takes over from one that died.
    :param max_attempts: how often a trigger is handled before it is dead; an attempt whose worker died counts.
    :param backoff: seconds from the first failed attempt to the second, doubling up to the longest.
    :raises RecordValueError: if an argument cannot be used.
    """

    def __init__(
        self,
        *,
        tenants: Collection[str] | None = None,
        poll_interval: float = 0.05,
        lease: float = 30.0,
        max_attempts: int = 5,
        backoff: tuple[float, float] = (0.1, 30.0),
    ) -> None:
        self._tenants = _checked_tenants(tenants)
        self._poll_interval = check_ttl(poll_interval, "poll_interval")
        self._lease = check_ttl(lease, "lease")
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
            raise RecordValueError(f"max_attempts must be an int of at least 1, got {max_attempts!r:.80}")
        self._max_attempts = max_attempts
        self._handling = TriggerHandling(
            lease=self._lease, max_attempts=max_attempts, backoff=_checked_backoff(backoff)
        )
        self._wake = self._handling.room
        self._wake_ups: StreamNotifications | None = None
        self._woken_by: RedisClient | None = None
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._unhandled: dict[str, int] = {}
        self._failing: set[str] = set()
        self._unclaimable: set[tuple[str, str]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start to claim triggers, on the running event loop. Works while Redis is down.

        :raises RuntimeStateError: if it runs already.
        :raises RedisUnavailableError: if there is no Redis at all: no runtime, and no REDIS_URL.
        """
        if self._tasks:
            raise RuntimeStateError("the runner runs already; stop it first, or make another one")
        await current_redis()
        self._stopping = False
        self._failing.clear()
        self._tasks = [asyncio.create_task(each) for each in (self._fire(), self._renew(), self._report())]

    async def stop(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - a grace, after which it acts
        """Claim no more, let the running handlers finish, and end. Does nothing if it was not started.

        :param timeout: seconds after which handlers are cancelled and their triggers released at once.
        """
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        self._stopping = True
        self._wake.set()
        try:
            await asyncio.wait(tasks[:1])  # a claim under way still arrives
            await self._handling.finish(timeout)
        finally:
            await self._handling.finish(0)  # nothing left to do, unless stopping was cancelled
            await end_tasks(tasks)
            await self._stop_wake_ups()

    def metrics(self) -> dict[str, Any]:
        """Return ``handled``, ``failed`` and ``dead`` so far, ``running`` handlers, and ``unhandled`` actions.

        ``unhandled`` counts the tenants that wait for an action without a handler in this process; looked up every few
        seconds.
        """
        return {**self._handling.counts, "running": self._handling.running, "unhandled": dict(self._unhandled)}

    async def _fire(self) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed without stopping the runner
                loop.call_soon_threadsafe(self._wake.set)

        WATCHERS.add(wake)
        try:
            while not self._stopping:
                pause, spacing = _OUTAGE_PAUSE, loop.time() + min(_SPACING, self._poll_interval)
                with self._outlasting_failures("fire"):
                    pause = await self._claim_what_is_due()
                if pause:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), pause)
                        await asyncio.sleep(min(pause, spacing - loop.time()))
                    self._wake.clear()
        finally:
            WATCHERS.discard(wake)

    async def _claim_what_is_due(self) -> float:
        """Claim what there is room for; return the seconds to wait until there may be more."""
        schedule = await self._waking_schedule()
        actions = sorted(HANDLERS)
        due, until_next = await schedule.due(actions)
        if actions:
            self._reached("fire")
        random.shuffle(due)
        tried = claimed = False
        for action, tenant in due:
            if self._tenants is not None and tenant not in self._tenants:
                continue
            limit = min(self._handling.free, _SHARE)
            if not limit:
                return _OUTAGE_PAUSE  # the first handler that ends wakes the runner
            tried = True
            try:
                claims, died = await schedule.claim(
                    tenant, action, limit=limit, lease=self._lease, max_attempts=self._max_attempts
                )
            except RedisDeniedError:
                raise
            except RedisCommandError as exc:  # another program wrote under its keys; the other triggers go on
                if (tenant, action) not in self._unclaimable and len(self._unclaimable) < _MOST_SAID:
                    self._unclaimable.add((tenant, action))
                    logger.error("Triggers for %r of one tenant cannot be claimed: %s", action, exc)  # noqa: TRY400 - it says all
                continue
            self._unclaimable.discard((tenant, action))
            self._handling.buried(action, len(died))
            for each in claims:
                self._handling.start(schedule, each)
            claimed = claimed or bool(claims)
        if claimed:
            return 0
        # If another runner was faster, the end of its lease is not known here yet: check again soon.
        woken = self._wake_ups is not None and self._wake_ups.live and not tried
        longest = LONGEST_SLEEP if woken else self._poll_interval
        return longest if until_next is None else min(longest, until_next)

    async def _waking_schedule(self) -> TriggerSchedule:
        """Return the schedule, and subscribe to the wake-ups of its Redis, if it supports them."""
        client, keys = await current_redis()
        schedule = TriggerSchedule(client, keys)
        if client is not self._woken_by:
            await self._stop_wake_ups()
            self._woken_by = client
            with suppress(ConfigurationError):  # the runtime was given a client without a URL: poll it
                self._wake_ups = client.notifications(schedule.wakes, self._wake.set)
                self._wake_ups.start()
        return schedule

    async def _stop_wake_ups(self) -> None:
        wake_ups, self._wake_ups, self._woken_by = self._wake_ups, None, None
        if wake_ups is not None:
            await wake_ups.aclose()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            if self._handling.running:
                with self._outlasting_failures("renew"):
                    await self._handling.renew_leases()
                    self._reached("renew")
            else:
                self._reached("renew")

    async def _report(self) -> None:
        while True:
            pause = _OUTAGE_PAUSE
            with self._outlasting_failures("report"):
                await self._look_for_unhandled()
                pause = _REPORT_INTERVAL
            await asyncio.sleep(pause)

    async def _look_for_unhandled(self) -> None:
        schedule = TriggerSchedule(*await current_redis())
        due, _ = await schedule.due([action for action in await schedule.actions() if action not in HANDLERS])
        self._reached("report")
        unhandled = Counter(action for action, tenant in due if self._tenants is None or tenant in self._tenants)
        for action in unhandled.keys() - self._unhandled.keys():
            logger.warning("Triggers for %r are due and this process has no handler for them", action)
        self._unhandled = dict(unhandled)

    @contextmanager
    def _outlasting_failures(self, job: str) -> Iterator[None]:
        try:
            yield
        except RedisUnavailableError:
            pass  # Its client logs the outage.
        except RedisOperationError as exc:
            if not self._failing:
                logger.warning("Triggers wait until Redis accepts what it refuses: %s", exc)
            self._failing.add(job)
        except Exception:
            logger.exception("The trigger runner failed and goes on")

    def _reached(self, job: str) -> None:
        """Record that a job succeeded, or has nothing to ask; log it when nothing is refused any more."""
        if job in self._failing:
            self._failing.discard(job)
            if not self._failing:
                logger.info("Triggers are fired again")


def _checked_tenants(tenants: Collection[str] | None) -> frozenset[str] | None:
    if tenants is None:
        return None
    if isinstance(tenants, str):
        raise RecordValueError(f"tenants must be a collection of names, not a str: {tenants!r:.80}; put it in a list")
    for each in tenants:
        encode_component(each, "tenants")
    return frozenset(tenants)


def _checked_backoff(backoff: tuple[float, float]) -> tuple[float, float]:
    try:
        first, longest = backoff
    except (TypeError, ValueError):
        raise RecordValueError(f"backoff must be two numbers, first and longest pause, got {backoff!r:.80}") from None
    first, longest = check_ttl(first, "backoff"), check_ttl(longest, "backoff")
    if first > longest:
        raise RecordValueError(f"backoff must name the shorter pause first, got {backoff!r:.80}")
    return first, longest
