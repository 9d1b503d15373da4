"""A timeout that counts turns of the event loop, for the reason that ``operation.py`` gives."""

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["Turns"]

_TURNS: Final = 50
_SHORTEST: Final = 0.001


class Turns:
    """Like ``asyncio.timeout``, but counts time in which this process was too busy to read an answer as little.

    :param seconds: for everything in the ``async with`` block, which then ends with ``TimeoutError``; None: no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._step = None if seconds is None else max(seconds / _TURNS, _SHORTEST)
        self._left = _TURNS
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._wait()
        return self

    def _wait(self) -> None:
        if self._step is not None:
            self._timer = self._loop.call_later(self._step, self._turn)

    def _turn(self) -> None:
        self._left -= 1
        if self._left:
            self._wait()
        else:
            self._scope.reschedule(self._loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, exc, traceback)
