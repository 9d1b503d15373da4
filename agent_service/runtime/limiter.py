"""A limit on how many tasks do something at once."""

import asyncio
import time
from types import TracebackType
from typing import Self

__all__ = ["ConcurrencyLimiter"]


class ConcurrencyLimiter:
    """Admits ``limit`` holders at once; the others wait in order of arrival.

    ::

        async with runtime.limiter:
            answer = await model.complete(prompt)

    It belongs to one event loop. A task that enters twice holds two places.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._semaphore = asyncio.Semaphore(limit)
        self._held = 0
        self._waiting = 0
        self._waits = 0
        self._waited = 0.0

    async def __aenter__(self) -> Self:
        if self._semaphore.locked():
            await self._wait()
        else:
            await self._semaphore.acquire()
        self._held += 1
        return self

    async def _wait(self) -> None:
        began = time.monotonic()  # an event loop's own clock may stand still while it is busy
        self._waiting += 1
        self._waits += 1
        try:
            await self._semaphore.acquire()
        finally:
            self._waiting -= 1
            self._waited += time.monotonic() - began

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held -= 1
        self._semaphore.release()

    def metrics(self) -> dict[str, float]:
        """Return ``limit``, the current ``held`` and ``waiting``, and ``waits`` and ``wait_seconds`` so far."""
        return {
            "limit": self.limit,
            "held": self._held,
            "waiting": self._waiting,
            "waits": self._waits,
            "wait_seconds": round(self._waited, 6),
        }
