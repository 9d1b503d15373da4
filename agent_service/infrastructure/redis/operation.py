"""What every operation on Redis has in common: a slot, one deadline, one measured duration, one translation of errors.

**The deadline counts the server's time only.** It is there to find a server that does not answer. So it begins when the
operation has its slot, and does not advance while this process is too busy to read an answer. Time is counted in turns:
a timer fires ``_TURNS`` times within ``timeout``, and one that fires late counts once. So an operation has at least
``timeout`` seconds, and at least ``_TURNS`` rounds of the event loop in which to read what has arrived. Where that is
not enough for a large reply, the deadline starts again while unread bytes lie in the connection
(``Operation.arrived``), a limited number of times.

**One timer serves all operations.** A dictionary holds them in the order in which their deadlines began, so a turn
looks only at those that are late, and at one more. That costs a dictionary entry per operation, where
``asyncio.timeout`` costs a timer each and about ten times as much.

**A late operation is cancelled.** Its task is cancelled, which is distinguished from a cancellation by the caller as in
``asyncio.timeout``: by the task's count of cancellation requests. A reply that arrives all the same counts.

**Every slot comes back.** Nothing is awaited between getting a slot and entering the running operations, and whatever
ends an operation that runs gives its slot back: to the operation that has waited longest, else it is free.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from agent_service.core.availability import Availability, availability_of
from agent_service.core.errors import RedisOperationError, RedisUnavailableError
from agent_service.core.store_metrics import LatencyHistogram
from agent_service.core.tracing import TRACING, Server
from agent_service.core.turns import MOST_EXTENSIONS
from agent_service.infrastructure.redis.errors import is_translatable, translate
from agent_service.infrastructure.redis.slots import Slots

__all__ = ["UNKNOWN", "Operation", "Operations"]

logger = logging.getLogger("agent_service.redis")

_TURNS: Final = 100
"""Enough rounds of the loop to connect over TLS, greet the nodes of a cluster and read many replies, if each takes
long. The timer costs a thousandth of a processor while operations run."""
_SHORTEST_TURN: Final = 0.001
UNKNOWN: Final = Server("redis")


class Operations:
    """The running operations of one client, on one event loop.

    An outage is over when nothing has failed for twice the ``timeout``.

    :param timeout: seconds that an operation may take once it has a slot.
    :param slots: operations that run at once.
    :param server: the same as ``target``, for traces and metrics; :data:`UNKNOWN` shares its outages with no client.
    """

    def __init__(self, *, target: str, timeout: float, slots: int, latency: LatencyHistogram, server: Server) -> None:
        self.target = target
        self.server = server
        self.timeout = timeout
        self.available: bool | None = None
        """Whether the latest operation reached the server; None before the first one."""
        self.slots = Slots(slots)
        self._turn = 0
        """The present turn: how often the timer has fired."""
        self._step = max(timeout / _TURNS, _SHORTEST_TURN)
        self._turns = self._turns_in(timeout)
        self._answered = 0
        """The turn of the latest answer."""
        self.availability = (
            Availability(f"Redis of {target}", logger, quiet=2 * timeout)
            if server == UNKNOWN
            else availability_of(f"Redis at {target}", logger, quiet=2 * timeout)
        )
        self._latency = latency
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer should fire, on the loop's clock."""
        self._running: dict[Operation, None] = {}
        """In the order in which their deadlines began."""
        self._ended: asyncio.Event | None = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._ended is not None

    def begin(self, patience: float | None = None) -> "Operation":
        """Begin an operation of the current task; use the result in an ``async with`` statement around all its awaits.

        :param patience: seconds to wait for a slot; None: as long as the server answers others.
        :raises RedisUnavailableError: when the client is closed or belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._ended is not None:
            self._check_usable(loop)
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("A Redis operation must be awaited inside a task")
        return Operation(self, task, patience)

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

    async def wait(self, patience: float | None) -> None:
        """Wait for a slot, where none is free."""
        turns = None if patience is None else self._turns_in(patience)
        try:
            await self.slots.wait(self._turn, turns)
        except BaseException:
            self._tell_if_ended()
            raise

    def start(self, operation: "Operation") -> None:
        """Start the deadline of an operation that has a slot."""
        operation.began = self._turn
        operation.started = time.monotonic()
        self._running[operation] = None
        if self._timer is None:
            assert self._loop is not None
            self._answered = self._turn
            self._due = self._loop.time() + self._step
            self._timer = self._loop.call_at(self._due, self._sweep, self._loop)

    def end(self, operation: "Operation", outcome: BaseException | None) -> None:
        """Forget an operation; note what it says about the server and how long it took."""
        del self._running[operation]
        slots = self.slots
        if slots.waiting:
            slots.hand_on()
        else:
            slots.free += 1
        if self._ended is not None:
            self._tell_if_ended()
        now = time.monotonic()
        if outcome is None or isinstance(outcome, RedisOperationError):
            self._note(outcome)
        self._latency.observe(now - operation.started)
        if TRACING.observer is not None:
            name = operation.command[0] if operation.command else b"PIPELINE"
            TRACING.observer.operated(
                self.server, name.decode() if isinstance(name, bytes) else str(name), now - operation.started, outcome
            )

    def _note(self, outcome: RedisOperationError | None) -> None:
        """Note whether the server was reached."""
        self.available = not isinstance(outcome, RedisUnavailableError)
        if not self.available:
            self.availability.failed(outcome)
            return
        self._answered = self._turn
        if self.availability.away:
            self.availability.answered()

    def _turns_in(self, seconds: float) -> int:
        """Return the turns within some seconds, and one more: the turn in which the count begins may be nearly over."""
        return math.ceil(seconds / self._step) + 1

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the next turn: end the operations, and the waits for slots, that are late."""
        self._timer = None
        self._turn += 1
        oldest = self._turn - self._turns
        late = []
        for operation in self._running:
            if operation.began >= oldest:
                break
            late.append(operation)
        for operation in late:
            if operation.may_go_on():
                self._answered = operation.began = self._turn
                del self._running[operation]  # to the end, which keeps the order of the deadlines
                self._running[operation] = None
            else:
                operation.expire()
        if self.slots.waiting:
            self.slots.sweep(self._turn)
            if self._answered < oldest:  # nobody was answered for the timeout: more waiting would be in vain
                self.slots.fail_since(self._turn + 1, f"Redis did not answer within {self.timeout:g} s")
            elif self.closed:
                self.slots.fail_since(oldest, f"The client of {self.target} was closed")
        if self._running:
            # A timer that fires a little late is made up for by the next one; one that fires very late is not.
            self._due = max(self._due + self._step, loop.time())
            self._timer = loop.call_at(self._due, self._sweep, loop)

    async def close(self) -> None:
        """Refuse new operations and wait for the others.

        Each of them waits for a slot at most ``timeout`` seconds from now on, and its deadline bounds the rest.
        """
        self._ended = self._ended or asyncio.Event()
        if not self.slots.all_free:
            await self._ended.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_if_ended(self) -> None:
        if self._ended is not None and self.slots.all_free:
            self._ended.set()


class Operation:
    """One operation of one task. Its ``async with`` block raises only our errors, or the caller's cancellation."""

    __slots__ = (
        "_cancelling",
        "_expired",
        "_extensions",
        "_operations",
        "_patience",
        "_task",
        "arrived",
        "began",
        "command",
        "sent",
        "started",
    )

    def __init__(self, operations: Operations, task: "asyncio.Task[object]", patience: float | None) -> None:
        self.sent = False
        """Whether anything of it may have reached the server; set by the transport before it writes."""
        self.began = 0
        """The turn in which its deadline began."""
        self.started = 0.0
        """When it got its slot, in monotonic seconds."""
        self.command: Sequence[Any] = ()
        """What was sent, so that an error can name it where the server denies it."""
        self.arrived: Callable[[], bool] | None = None
        """Tells whether its connection holds bytes that were not read or sent yet; None: it has no connection."""
        self._extensions = MOST_EXTENSIONS
        self._operations = operations
        self._patience = patience
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False

    async def __aenter__(self) -> Self:
        operations = self._operations
        slots = operations.slots
        if slots.free:
            slots.free -= 1
        else:
            await operations.wait(self._patience)
        operations.start(self)
        return self

    async def __aexit__(
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
        """Return what the operation ends with, for what its block ended with."""
        timed_out = self._expired and self._task.uncancel() <= self._cancelling
        if timed_out and isinstance(exc, asyncio.CancelledError):
            return RedisUnavailableError(
                f"Redis did not answer within {self._operations.timeout:g} s", maybe_executed=self.sent
            )
        if exc is not None and is_translatable(exc):
            return translate(exc, sent=self.sent, command=self.command)
        return exc

    def may_go_on(self) -> bool:
        """Take an extension; True if one is left, and this process, not the server, keeps the operation waiting."""
        if self._expired or not self._extensions or self.arrived is None or not self.arrived():
            return False
        self._extensions -= 1
        return True

    def expire(self) -> None:
        """End the operation, once."""
        if not self._expired:
            self._expired = True
            self._task.cancel()
