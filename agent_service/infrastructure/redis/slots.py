"""How many operations run at once: the others wait their turn, first come, first served.

Waiting for a slot is this process's own doing and says nothing about the server, so it has bounds of its own. They are
counted in turns of the event loop, like the deadlines of ``operation.py``, which calls :meth:`Slots.sweep` each turn.
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
    """The slots of one client. A slot that becomes free is handed to who has waited longest.

    :param number: how many there are.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._free = number
        self._waiting: deque[_Waiter] = deque()
        self._by_patience: dict[int, deque[_Waiter]] = {}

    def __len__(self) -> int:
        """How many wait; those that have just left may be counted."""
        return len(self._waiting)

    @property
    def all_free(self) -> bool:
        """Whether nobody has one; then nobody waits either."""
        return self._free == self._number

    def take(self) -> bool:
        """Take a slot at once; False: there is none, see :meth:`wait`."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def wait(self, now: int, patience: int | None) -> None:
        """Wait for a slot.

        :param now: the present turn.
        :param patience: turns to wait; None: as long as the server answers others.
        :raises RedisOperationError: what :meth:`sweep` or :meth:`fail_since` decided.
        """
        waiter = _Waiter(now, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if patience is not None:
            self._by_patience.setdefault(patience, deque()).append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.give_back()  # it was handed over in the moment of the cancellation
            raise

    def give_back(self) -> None:
        """Hand a slot on."""
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
        if self._by_patience:
            self._by_patience.clear()

    def sweep(self, now: int) -> None:
        """End the waits of those who have waited as long as they would."""
        for patience, waiters in self._by_patience.items():
            while waiters and (waiters[0].turn.done() or waiters[0].since < now - patience):
                busy = RedisBusyError(
                    f"all {self._number} connections were busy while an operation waited for one; "
                    "start fewer operations at once"
                )
                _fail(waiters.popleft(), busy)

    def fail_since(self, turn: int, message: str) -> None:
        """End the waits that began before a turn, with an error that says why."""
        while self._waiting and (self._waiting[0].turn.done() or self._waiting[0].since < turn):
            _fail(self._waiting.popleft(), RedisUnavailableError(message))


def _fail(waiter: _Waiter, error: RedisOperationError) -> None:
    if not waiter.turn.done():
        waiter.turn.set_exception(error)
        waiter.turn.exception()  # who is cancelled now will never ask for it
