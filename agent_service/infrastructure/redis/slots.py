"""Limits how many operations run at once; the others wait, first come, first served.

A wait for a slot is caused by this process and says nothing about the server, so it has bounds of its own. They are
counted in turns of the event loop, like the deadlines of ``operation.py``, which calls :meth:`Slots.sweep` each turn.

No operation waits while a slot is free. So one that finds ``free`` above 0 takes one by subtracting 1, and one that
ends while none is ``waiting`` adds 1; ``operation.py`` does both itself, because every operation does.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from agent_service.core.errors import RedisBusyError, RedisOperationError, RedisUnavailableError

__all__ = ["Slots"]


class _Waiter(NamedTuple):
    since: int
    """The turn in which it began to wait."""
    turn: asyncio.Future[None]


class Slots:
    """The slots of one client.

    :param number: how many there are.
    """

    def __init__(self, number: int) -> None:
        self.free = number
        """How many are not held."""
        self.waiting: deque[_Waiter] = deque()
        """The operations that wait, longest first; those that were cancelled or failed may still be among them."""
        self._number = number
        self._by_patience: dict[int, deque[_Waiter]] = {}
        """Those that wait a limited time, by how many turns that is."""

    @property
    def held(self) -> int:
        """How many are held."""
        return self._number - self.free

    @property
    def all_free(self) -> bool:
        """Whether none is held; then none is waited for either."""
        return self.free == self._number

    async def wait(self, now: int, patience: int | None) -> None:
        """Wait until a slot is handed over.

        :param now: the present turn.
        :param patience: turns to wait; None: as long as the server answers others.
        :raises RedisOperationError: what :meth:`sweep` or :meth:`fail_since` decided.
        """
        waiter = _Waiter(now, asyncio.get_running_loop().create_future())
        self.waiting.append(waiter)
        if patience is not None:
            self._by_patience.setdefault(patience, deque()).append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.hand_on()  # the slot was handed over in the moment of the cancellation
            raise

    def hand_on(self) -> None:
        """Hand a slot to the operation that has waited longest; where none waits any more, it is free."""
        while self.waiting:
            turn = self._next().turn
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def sweep(self, now: int) -> None:
        """Fail the waits that have lasted as long as their patience."""
        for patience, waiters in self._by_patience.items():
            while waiters and (waiters[0].turn.done() or waiters[0].since < now - patience):
                busy = RedisBusyError(
                    f"all {self._number} connections were busy while an operation waited for one; "
                    "start fewer operations at once"
                )
                _fail(waiters.popleft(), busy)

    def fail_since(self, turn: int, message: str) -> None:
        """Fail the waits that began before a turn, with an error that says why."""
        while self.waiting and (self.waiting[0].turn.done() or self.waiting[0].since < turn):
            _fail(self._next(), RedisUnavailableError(message))

    def _next(self) -> _Waiter:
        waiter = self.waiting.popleft()
        if not self.waiting:
            self._by_patience.clear()
        return waiter


def _fail(waiter: _Waiter, error: RedisOperationError) -> None:
    if not waiter.turn.done():
        waiter.turn.set_exception(error)
        waiter.turn.exception()  # marks it as retrieved: a caller that is cancelled now will never ask for it
