"""How values are distributed: how many lie below each of some fixed bounds."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

__all__ = ["SECONDS", "SHOWN_SECONDS", "SIZES", "Histogram"]

SECONDS: Final = (
    *(
        float(f"{mantissa}e{exponent}")
        for exponent in range(-5, 2)
        for mantissa in (1, 1.2, 1.5, 1.8, 2.1, 2.5, 3, 3.6, 4.3, 5, 6, 7.2, 8.6)
    ),
    100.0,
)
"""Bounds of durations, from 10 microseconds to 100 seconds: each at most a quarter above the one before, and 1, 2.5
and 5 of each power of ten among them."""
SHOWN_SECONDS: Final = tuple(float(f"{mantissa}e{exponent}") for exponent in range(-4, 2) for mantissa in (1, 2.5, 5))
"""Those of :data:`SECONDS` that other programs are shown, from 100 microseconds to 50 seconds."""
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Bounds of numbers of things."""


class Histogram:
    """Values counted between bounds: constant memory, and percentiles as exact as the bounds are close.

    :param bounds: ascending; a value belongs to the first that it does not exceed, or lies beyond the last one.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.reset()

    def reset(self) -> None:
        """Forget every observation."""
        self.counts = [0] * (len(self.bounds) + 1)
        """Values by bucket. The hottest paths add to it as :meth:`observe` does, to save the call."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Add one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """Return how many values do not exceed each bound, and at last how many there are.

        :param bounds: some of the histogram's own, ascending.
        """
        below = list(accumulate(self.counts))
        return [*(below[bisect_left(self.bounds, each)] for each in bounds), below[-1]]

    def percentile(self, percent: float) -> float:
        """Return what ``percent`` of the values did not exceed (the upper bound of a bucket); 0.0 if empty."""
        counts = self.counts.copy()  # another thread may observe meanwhile
        rank = sum(counts) * percent / 100
        for position, seen in enumerate(accumulate(counts)):
            if seen and seen >= rank:
                return self.bounds[min(position, len(self.bounds) - 1)]
        return 0.0

    def snapshot(self) -> dict[str, float]:
        """Return count, mean and percentiles of durations, in milliseconds."""
        count = self.count
        mean = self.total / count if count else 0.0
        percentiles = {f"p{percent}_ms": round(self.percentile(percent) * 1e3, 3) for percent in (50, 95, 99)}
        return {"count": count, "mean_ms": round(mean * 1e3, 3), **percentiles}
