"""Giving up on many futures after one and the same time, with one timer for all: one for each costs too much."""

import asyncio
from collections import deque
from typing import Any

__all__ = ["Deadlines"]


class Deadlines:
    """Ends futures that are not done in time by a TimeoutError. Of one event loop.

    :param seconds: how long each has, from when it is given.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: "asyncio.Future[Any]") -> None:
        """Return a future its time, beginning now."""
        waiting, loop = self._waiting, future.get_loop()
        while waiting and waiting[0][1].done():
            waiting.popleft()
        due = loop.time() + self._seconds
        waiting.append((due, future))
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)

    def close(self) -> None:
        """Watch no longer."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, now = self._waiting, loop.time()
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now):
            _, future = waiting.popleft()
            if not future.done():
                future.set_exception(TimeoutError())
        self._timer = loop.call_at(waiting[0][0], self._look, loop) if waiting else None
