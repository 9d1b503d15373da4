"""Time is passed in: a monotonic clock for durations, UTC for what is stored."""

import time
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """The source of time of a component; ``agent_service.testing.FakeClock`` is one that tests can move."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, never going back."""
        ...

    def now(self) -> datetime:
        """Return the current moment as a timezone-aware UTC datetime."""
        ...


class SystemClock:
    """The machine's own clocks, unless a test has them follow another."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    """Seconds since 1970."""
    is_moved = False
    """Whether it follows a test's clock, which servers do not know."""

    @staticmethod
    def now() -> datetime:
        """Return the current moment in UTC."""
        return datetime.now(UTC)

    def follow(self, clock: Clock | None) -> None:
        """Show the time of another clock; None: the machine's again. For tests: what took a method before keeps it."""
        vars(self).clear()
        if clock is not None:
            vars(self).update(
                monotonic=clock.monotonic, now=clock.now, time=lambda: clock.now().timestamp(), is_moved=True
            )


SYSTEM_CLOCK: Final = SystemClock()
