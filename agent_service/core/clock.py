"""Time is passed in: a monotonic clock for durations, UTC for what is stored."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The source of time of a component; ``agent_service.testing.FakeClock`` is one that tests can move."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, never going back."""
        ...

    def now(self) -> datetime:
        """Return the current moment as a timezone-aware UTC datetime."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def now() -> datetime:
        """Return the current moment in UTC."""
        return datetime.now(UTC)


SYSTEM_CLOCK: Clock = SystemClock()
