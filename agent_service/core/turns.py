"""A timeout that counts turns of the event loop, so that only the time of the other side counts.

A timer fires several times within the timeout, and one that fires late counts once: an answer is not late while this
process was too busy to read it.
"""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["MOST_EXTENSIONS", "Turns"]

_TURNS: Final = 50
_SHORTEST: Final = 0.001
MOST_EXTENSIONS: Final = 20
"""How often the time starts again because a reply has arrived but was not read: a server cannot extend it for ever."""


class Turns:
    """Like ``asyncio.timeout``, but time in which this process was too busy to read an answer hardly counts.

    :param seconds: for everything in the ``async with`` block, which then ends with ``TimeoutError``; None: no limit.
    :param arrived: tells whether a reply has arrived that was not read yet; then the time starts again.
    """

    def __init__(self, seconds: float | None, arrived: Callable[[], bool] | None = None) -> None:
        self._step = None if seconds is None else max(seconds / _TURNS, _SHORTEST)
        self._turns = 1 if seconds is None or self._step is None else max(1, math.ceil(seconds / self._step))
        self._left = self._turns
        self._arrived = arrived
        self._extensions = MOST_EXTENSIONS
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    @property
    def expired(self) -> bool:
        """Whether the time was over before the block ended."""
        return self._scope.expired()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        if self._step is not None:
            self._due = self._loop.time()
            self._wait(self._step)
        return self

    def _wait(self, step: float) -> None:
        # The next turn makes up for one that came a little late, but not for one that came very late.
        self._due = max(self._due + step, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._turn, step)

    def _turn(self, step: float) -> None:
        self._left -= 1
        if not self._left and self._extensions and self._arrived is not None and self._arrived():
            self._extensions -= 1
            self._left = self._turns
        if self._left:
            self._wait(step)
        else:
            self._scope.reschedule(self._loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, exc, traceback)
