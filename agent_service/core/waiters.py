"""Tasks that wait for something to become free, and get it in the order in which they came.

Waking a task that then looks for what is free lets another one overtake it, so that it waits again, behind all others.
So what becomes free is handed to the task itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["Waiters"]

T = TypeVar("T")


class Waiters(Generic[T]):
    """A queue of tasks. While a task waits, nothing is free: whatever becomes free is given to the queue first."""

    def __init__(self) -> None:
        self._promised: deque[asyncio.Future[T]] = deque()

    async def wait(self, seconds: float, give_back: Callable[[T], None]) -> T:
        """Wait behind all others until something is given.

        :param give_back: takes what was given to a task that was cancelled before it could run.
        :raises TimeoutError: nothing was given in so many seconds.
        """
        loop = asyncio.get_running_loop()
        promised: asyncio.Future[T] = loop.create_future()
        self._promised.append(promised)
        timer = loop.call_later(seconds, _give_up, promised)
        try:
            return await promised
        except BaseException:
            if not promised.done() or promised.cancelled() or promised.exception() is not None:
                with suppress(ValueError):
                    self._promised.remove(promised)
            else:
                give_back(promised.result())
            raise
        finally:
            timer.cancel()

    def give(self, thing: T) -> bool:
        """Give something to the task that has waited longest; return False if no task waits."""
        while self._promised:
            promised = self._promised.popleft()
            if not promised.done():
                promised.set_result(thing)
                return True
        return False


def _give_up(promised: "asyncio.Future[T]") -> None:
    if not promised.done():
        promised.set_exception(TimeoutError())
