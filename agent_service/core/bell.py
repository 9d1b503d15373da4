"""Waking one task, from whatever thread."""

import asyncio
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """What one task at a time waits for. A ring that comes while nobody waits is kept for the next :meth:`wait`.

    It may be made anywhere, rung by any thread, and waited for on one event loop after another. No ring is lost: the
    task says that it waits before it looks whether it rang, and :meth:`ring` notes the ring before it looks who waits.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the task, now or at its next :meth:`wait`."""
        self._rung = True
        waiting = self._waiting
        if waiting is None:
            return
        loop = waiting.get_loop()
        if _here() is loop:
            _end(waiting)
        else:
            with suppress(RuntimeError):  # its loop was closed without ending the task
                loop.call_soon_threadsafe(_end, waiting)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it rings, or for so long; return whether it rang."""
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        try:
            if not self._rung:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await waiting
        finally:
            if self._waiting is waiting:  # else this task was left behind by a loop that was closed
                self._waiting = None
        rang, self._rung = self._rung, False
        return rang


def _here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
