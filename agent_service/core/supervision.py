"""Background work that goes on for as long as a service runs, whatever happens to it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.logging import logger

__all__ = ["Supervised"]

_PAUSES: Final = Backoff(0.5, 30.0)
_SETTLED: Final = 60.0
"""Seconds that work runs after a restart before it counts as well again. Longer than the longest pause, so that work
which fails a little later each time is not reported twice."""


class Supervised:
    """Runs work that should not end, and starts it again after a pause when it ends or raises.

    A change of state is logged once, however often the work fails: that it failed, with the traceback, and that it runs
    again. The pauses double from 0.5 to 30 seconds, and begin anew once it has run well.

    :param name: what the log calls it.
    :param work: called for each start; what it returns is awaited.
    :param pauses: between the end of the work and its next start.
    :param settled: seconds it must run after a restart to count as well.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[object]], *, pauses: Backoff = _PAUSES, settled: float = _SETTLED
    ) -> None:
        self.name = name
        self.restarts = 0
        """How often it was started again."""
        self.failing = False
        """Whether it ended or raised, and has not run well since."""
        self._work = work
        self._pauses = pauses
        self._settled = settled

    async def run(self) -> None:
        """Run the work until cancelled; then the work is cancelled, and waited for."""
        failures = 0
        while True:
            working = asyncio.ensure_future(self._attempt())
            try:
                if self.failing and not (await asyncio.wait({working}, timeout=self._settled))[0]:
                    logger.info("%s runs again", self.name)
                    self.failing, failures = False, 0
                await asyncio.wait({working})
            finally:
                working.cancel()
                await asyncio.wait({working})
            self._note_end(None if working.cancelled() else working.exception())
            await asyncio.sleep(self._pauses.pause(failures))
            failures += 1
            self.restarts += 1

    async def _attempt(self) -> None:
        await self._work()

    def _note_end(self, error: BaseException | None) -> None:
        if not self.failing:
            how = "ended" if error is None else "failed"
            logger.error("%s %s and will be started again", self.name, how, exc_info=error)
        self.failing = True
