"""Close what was opened, in reverse order, within a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from agent_service.core.deadline import Deadline
from agent_service.core.logging import logger

__all__ = ["Closing"]

_Close: TypeAlias = Callable[[float], Awaitable[object]]

_SHARE: Final = 0.5
"""Share of the time left that one step may take, so that what is closed after it has time too."""
_TOLD: Final = 0.8
"""Share of its time that a step is told: it may still have to cancel what did not end by then."""


class Closing:
    """The steps that close what a service has opened so far."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, _Close]] = []

    def add(self, name: str, close: _Close) -> None:
        """Add a step, which runs before those that were added earlier.

        :param close: is told how many seconds it may take; then it is cancelled.
        """
        self._steps.append((name, close))

    async def run(self, seconds: float) -> None:
        """Run the steps, whatever they raise, which is logged. Cancelling the caller does not stop them."""
        running = asyncio.create_task(self._run(seconds), name="close-service")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    async def _run(self, seconds: float) -> None:
        deadline = Deadline.after(seconds)
        while self._steps:
            name, close = self._steps.pop()
            share = deadline.left * _SHARE
            step = asyncio.ensure_future(_named(name, close, share * _TOLD))
            await asyncio.wait({step}, timeout=share)
            if not step.done():
                logger.warning("%s was not closed in time", name)
                step.cancel()
                await asyncio.wait({step}, timeout=deadline.left * _SHARE)


async def _named(name: str, close: _Close, seconds: float) -> None:
    try:
        await close(seconds)
    except Exception:  # noqa: BLE001 - the other steps must run
        logger.exception("%s could not be closed", name)
