"""One clock that moves everything: caches, repositories, the cleanup, and what Redis holds."""

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import ConfigurationError

__all__ = ["ServiceClock"]

_LONGEST = 100 * 366 * 86_400.0


class ServiceClock:
    """The machine's time, plus what a test has advanced it by. It goes on by itself, as servers' clocks do.

    While it is in force the package's own clock follows it: TTLs in memory, moments of repositories and of the cleanup.
    Event loops keep the machine's: what sleeps, and timeouts, are not moved.
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._others: list[Callable[[float], Awaitable[None]]] = []

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, never going back."""
        return time.monotonic() + self._ahead

    def now(self) -> datetime:
        """Return the current moment in UTC."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    async def advance(self, seconds: float | timedelta) -> None:
        """Let time pass: what would have expired by then has, and triggers that would be due are.

        :param seconds: above 0, at most 100 years.
        :raises ConfigurationError: for anything else.
        """
        given = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= _LONGEST:
            raise ConfigurationError(
                f"seconds must be a number or timedelta above 0, at most 100 years, got {seconds!r:.80}"
            )
        self._ahead += given
        for each in self._others:
            await each(math.ceil(given * 1000) / 1000)

    def also_moves(self, let_pass: Callable[[float], Awaitable[None]]) -> None:
        """Await ``let_pass`` with the seconds of each :meth:`advance`, for what has a clock of its own."""
        self._others.append(let_pass)

    def take_over(self) -> None:
        """Have the package's own clock follow this one."""
        SYSTEM_CLOCK.follow(self)

    @staticmethod
    def give_back() -> None:
        """Have the package's own clock show the machine's time again."""
        SYSTEM_CLOCK.follow(None)
