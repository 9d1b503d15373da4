"""What every operation on Redis has in common: one deadline, one measured duration, one translation of errors.

All operations of a client have the same timeout, so they expire in the order in which they began, and one timer serves
them all: it is set for the oldest one and, when it fires, for the oldest one that still runs. That costs a dictionary
entry per operation, where ``asyncio.timeout`` costs a timer each and about ten times as much.

An expired operation is ended by cancelling its task and is told from a cancellation by the caller in the same way as
``asyncio.timeout`` does it: by the task's count of cancellation requests.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from agent_service.core.errors import RedisOperationError, RedisUnavailableError
from agent_service.core.logging import logger
from agent_service.core.metrics import LatencyHistogram
from agent_service.infrastructure.redis.errors import is_translatable, translate

__all__ = ["Operation", "Operations"]


class Operations:
    """The running operations of one client, on one event loop.

    ``available`` is the last known state: None before the first answer, then whether the latest operation reached
    the server. An outage is logged when it begins and when, for the time of two deadlines, nothing has failed: one node
    of a cluster that is down makes every other answer a failure.
    """

    def __init__(self, *, target: str, timeout: float, latency: LatencyHistogram) -> None:
        self.target = target
        self.timeout = timeout
        self.available: bool | None = None
        self._outage = False
        self._failed_at = 0.0
        self._latency = latency
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[Operation, None] = {}
        self._ended: asyncio.Event | None = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._ended is not None

    def begin(self) -> "Operation":
        """Start an operation of the current task; use the result in a ``with`` statement around all its awaits.

        :raises RedisUnavailableError: when the client is closed or belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._ended is not None:
            self._check_usable(loop)
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("A Redis operation must be awaited inside a task")
        operation = Operation(self, task, loop.time())
        self._running[operation] = None
        if self._timer is None:
            self._timer = loop.call_at(operation.started + self.timeout, self._sweep, loop)
        return operation

    def _check_usable(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.closed:
            raise RedisUnavailableError(f"The client of {self.target} was closed; make a new one")
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise RedisUnavailableError(
                f"The client of {self.target} belongs to another event loop; make one per loop, "
                "as get_redis_manager() does"
            )

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for operation in self._running:
            expires = operation.started + self.timeout
            if expires > now:
                self._timer = loop.call_at(expires, self._sweep, loop)
                return
            operation.expire()

    def end(self, operation: "Operation", outcome: BaseException | None) -> None:
        """Forget an operation; note what it says about the server and how long it took."""
        del self._running[operation]
        now = asyncio.get_running_loop().time()
        self._latency.observe(now - operation.started)
        if outcome is None or isinstance(outcome, RedisOperationError):
            self._note(outcome, now)
        if self._ended is not None and not self._running:
            self._ended.set()

    def _note(self, outcome: RedisOperationError | None, now: float) -> None:
        self.available = not isinstance(outcome, RedisUnavailableError)
        if not self.available:
            self._failed_at = now
            if not self._outage:
                self._outage = True
                logger.warning("%s (%s)", outcome, self.target)
        elif self._outage and now - self._failed_at > 2 * self.timeout:
            self._outage = False
            logger.info("Redis at %s answers again", self.target)

    async def close(self) -> None:
        """Refuse new operations and wait for the running ones; their deadlines bound the wait."""
        self._ended = self._ended or asyncio.Event()
        if self._running:
            await self._ended.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Operation:
    """One operation of one task. Leaving the ``with`` block raises only our errors, or the caller's cancellation."""

    __slots__ = ("_cancelling", "_expired", "_operations", "_task", "command", "sent", "started")

    def __init__(self, operations: Operations, task: "asyncio.Task[object]", started: float) -> None:
        self.started = started
        self.sent = False
        self.command: Sequence[Any] = ()
        """What was sent, so that an error can name it where the server denies it."""
        self._operations = operations
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False

    def expire(self) -> None:
        """End the operation, once."""
        if not self._expired:
            self._expired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None and not self._expired:
            self._operations.end(self, None)
            return
        error = self._error(exc)
        self._operations.end(self, error)
        if error is not None and error is not exc:
            raise error from exc

    def _error(self, exc: BaseException | None) -> BaseException | None:
        timed_out = self._expired and self._task.uncancel() <= self._cancelling
        if timed_out and isinstance(exc, asyncio.CancelledError):
            return RedisUnavailableError(
                f"Redis did not answer within {self._operations.timeout:g} s", maybe_executed=self.sent
            )
        if exc is not None and is_translatable(exc):
            return translate(exc, sent=self.sent, command=self.command)
        return exc
