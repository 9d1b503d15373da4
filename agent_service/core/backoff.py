"""How long to wait before something that failed is tried again."""

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["Backoff"]

_MOST_DOUBLINGS: Final = 1000
"""A float holds no power of two above 2 ** 1023; a longest pause is reached long before."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double up to a longest one, each shortened at random by up to half.

    The random part spreads the processes that failed together, so that they do not come back together. At least half
    is always waited, so that a failure is never followed by another try at once. A value without state: the caller
    counts its failures, and starts again at 0 after a success.

    :param first: seconds, of the pause after the first failure.
    :param longest: seconds that no pause exceeds.
    """

    first: float
    longest: float

    def bound(self, failures: int) -> float:
        """Return the seconds of a pause before it is shortened.

        :param failures: how many there were before this one, however many that is.
        """
        return min(self.longest, self.first * 2.0 ** min(failures, _MOST_DOUBLINGS))

    def pause(self, failures: int) -> float:
        """Return the seconds to wait now: from half of :meth:`bound` up to all of it."""
        bound = self.bound(failures)
        return random.uniform(bound / 2, bound)  # noqa: S311 - spreads load, keeps no secret
