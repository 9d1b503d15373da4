"""Renewing what stands for some seconds only, while work goes on that may take longer."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

__all__ = ["Renewal"]


class Renewal:
    """A task that renews a token at once and then again and again, until it is stopped.

    :param renew: returns the token that replaces the one it is given, and does not raise.
    :param every: seconds between two renewals.
    """

    def __init__(self, token: str, renew: Callable[[str], Awaitable[str]], *, every: float) -> None:
        self._token = token
        self._renew = renew
        self._every = every
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            self._token = await self._renew(self._token)
            await asyncio.sleep(self._every)

    async def stop(self) -> str:
        """Renew no more, wait for a renewal that is under way, and return the present token."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return self._token
