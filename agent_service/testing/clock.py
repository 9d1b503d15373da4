"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

__all__ = ["FakeClock"]


class FakeClock:
    """A :class:`~agent_service.core.clock.Clock` whose monotonic and UTC time :meth:`advance` together."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError(f"start must have a time zone, got {start!r}; give it tzinfo=UTC")
        self._start = start.astimezone(UTC)
        self._elapsed = timedelta()

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._elapsed.total_seconds()

    def now(self) -> datetime:
        """Return the start plus the seconds advanced so far, in UTC."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """Move time forward, to the microsecond.

        :raises ValueError: for a negative number, NaN or infinity: time does not go back, nor end.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds must be finite and not negative, got {seconds!r}")
        self._elapsed += timedelta(seconds=seconds)
