"""Waking the tasks of this process that drain the outbox, from whatever thread has committed something."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

__all__ = ["Bell", "ring"]

_hung: set["Bell"] = set()


class Bell:
    """What one draining task waits for, on its own event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    @classmethod
    @contextmanager
    def hung(cls) -> Iterator[Self]:
        """Return a bell that :func:`ring` reaches until the block ends."""
        bell = cls()
        _hung.add(bell)
        try:
            yield bell
        finally:
            _hung.discard(bell)

    def ring(self) -> None:
        """Wake the task, now or at its next :meth:`wait`."""
        with suppress(RuntimeError):  # its loop was closed without ending the task
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> bool:
        """Wait until it rings, or for so long; whether it rang."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        rang = self._rung.is_set()
        self._rung.clear()
        return rang


def ring() -> None:
    """Ring every bell of this process."""
    for bell in tuple(_hung):
        bell.ring()
