"""Timeouts of many futures, all equally long, with one timer for all: a timer for each costs too much."""

import asyncio
from collections import deque
from typing import Any

__all__ = ["Deadlines"]


class Deadlines:
    """Fails futures of one event loop that are not done in time with a TimeoutError.

    :param seconds: timeout of each future, from when it is watched.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: "asyncio.Future[Any]") -> None:
        """Start the timeout of a future."""
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
