"""Seconds, as this package counts durations, to whole milliseconds, as servers do."""

from math import ceil, inf

__all__ = ["lifetime_in_milliseconds", "to_milliseconds"]


def to_milliseconds(seconds: float) -> int:
    """Return a duration in whole milliseconds, rounded up; 0 for 0 or less.

    Rounded up, because 0 means "no limit" to PostgreSQL, "for ever" to a blocking command of Redis, and is refused as
    a TTL: no positive duration may become 0, and no lease may end before its time. What is below a microsecond is
    dropped first: it is the error of the multiplication, and 1.1 s is 1,100 ms.

    Only for durations. A moment is rounded to the nearest millisecond where it is stored, since neither direction is
    the safe one.

    :param seconds: finite.
    """
    return max(ceil(round(seconds * 1000, 3)), 1) if seconds > 0 else 0


def lifetime_in_milliseconds(seconds: float) -> int:
    """Return a time to live as our commands on Redis take it: :func:`to_milliseconds`, and 0 for infinity."""
    return 0 if seconds == inf else to_milliseconds(seconds)
