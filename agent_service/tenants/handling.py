"""Run the handlers of claimed triggers, and report each result to the schedule."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.deadline import Deadline
from agent_service.core.errors import RedisOperationError, RedisUnavailableError
from agent_service.core.tracing import span
from agent_service.tenants.handlers import HANDLERS
from agent_service.tenants.schedule import TriggerClaim, TriggerSchedule

__all__ = ["TriggerHandling"]

logger = logging.getLogger("agent_service.tenants")

MAX_RUNNING: Final = 100
"""The most handlers that one runner runs at once; further due triggers wait, or another worker claims them."""
_MAX_ERROR: Final = 500
"""The most characters kept of the error that ended a trigger."""
_CLEAN_UP: Final = 5.0
"""Seconds that a cancelled handler has to end."""
_NOTING_PAUSES: Final = Backoff(0.05, 1.0)
"""Before the end of a handling is reported again because Redis did not answer."""


class TriggerHandling:
    """The running handlers of one runner. Every claim ends as done, to be tried again, or dead.

    :param lease: seconds that a claim holds unless renewed.
    :param max_attempts: a trigger that fails this often is dead.
    :param backoff: seconds from the first failed attempt to the second, doubling up to the longest.
    """

    def __init__(self, *, lease: float, max_attempts: int, backoff: tuple[float, float]) -> None:
        self.counts = {"handled": 0, "failed": 0, "dead": 0}
        self._lease = lease
        self._max_attempts = max_attempts
        self._backoff = Backoff(*backoff)
        self._running: dict[TriggerClaim, tuple[TriggerSchedule, asyncio.Task[None]]] = {}
        self.room = asyncio.Event()
        """Set when a handler ends while the runner was full."""

    @property
    def running(self) -> int:
        """How many handlers run now."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many more may run."""
        return MAX_RUNNING - len(self._running)

    def start(self, schedule: TriggerSchedule, claim: TriggerClaim) -> None:
        """Run the handler of a claimed trigger."""
        task = asyncio.create_task(self._handle(schedule, claim))
        self._running[claim] = schedule, task
        task.add_done_callback(lambda _: self._ended(claim))

    def _ended(self, claim: TriggerClaim) -> None:
        if not self.free:
            self.room.set()
        del self._running[claim]

    def buried(self, action: str, number: int) -> None:
        """Count triggers that are dead because their workers died."""
        if number:
            self.counts["dead"] += number
            logger.error("%d triggers for %r are dead: their workers ended, or lost their leases", number, action)

    async def _handle(self, schedule: TriggerSchedule, claim: TriggerClaim) -> None:
        trigger = claim.trigger
        attributes: dict[str, str | int] = {
            "agent_service.trigger.action": trigger.action,
            "agent_service.trigger.attempt": trigger.attempt,
        }
        try:
            with span("handle trigger", attributes, kind="consumer", root=True):
                await HANDLERS[trigger.action](trigger)
        except asyncio.CancelledError:
            await self._note(partial(schedule.retry, claim, 0.0))
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises means: try again
            await self._note(self._failed(schedule, claim, exc))
        else:
            self.counts["handled"] += 1
            await self._note(partial(schedule.done, claim))

    def _failed(self, schedule: TriggerSchedule, claim: TriggerClaim, exc: Exception) -> Callable[[], Awaitable[bool]]:
        self.counts["failed"] += 1
        trigger = claim.trigger
        if trigger.attempt < self._max_attempts:
            return partial(schedule.retry, claim, self._backoff.bound(trigger.attempt - 1))
        self.counts["dead"] += 1
        logger.error("A trigger for %r is dead after %d attempts", trigger.action, trigger.attempt, exc_info=exc)
        error = f"{type(exc).__name__}: {exc}"[:_MAX_ERROR].encode(errors="backslashreplace").decode()
        return partial(schedule.bury, claim, error)

    async def _note(self, report: Callable[[], Awaitable[bool]]) -> None:
        """Report an end until Redis answers, as long as the claim certainly holds."""
        deadline, failures = Deadline.after(self._lease), 0
        while True:
            pause = _NOTING_PAUSES.pause(failures)
            try:
                await report()
            except RedisOperationError as exc:
                if pause > deadline.left:
                    # Not one line for each trigger of an outage, which the client logs.
                    level = logging.DEBUG if isinstance(exc, RedisUnavailableError) else logging.WARNING
                    logger.log(level, "Redis did not take note of a handled trigger; it will be handled again")
                    return
            else:
                return
            await asyncio.sleep(pause)
            failures += 1

    async def renew_leases(self) -> None:
        """Extend every claim of a running handler by another lease.

        :raises RedisOperationError: if Redis fails; the leases stay as they were.
        """
        renewals = [schedule.renew(claim, self._lease) for claim, (schedule, _) in list(self._running.items())]
        for outcome in await asyncio.gather(*renewals, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def finish(self, seconds: float) -> None:
        """Let the handlers finish; after ``seconds`` cancel them, which releases their triggers at once."""
        tasks = [task for _, task in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            await end_tasks(late)


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; those that take too long to clean up are cancelled once more."""
    late = set(tasks)
    for _ in range(2):
        for each in late:
            each.cancel()
        if late:
            _, late = await asyncio.wait(late, timeout=_CLEAN_UP)
