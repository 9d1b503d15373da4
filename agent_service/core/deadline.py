"""Deadlines: the moment at which something has to be over."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a clock that never goes back.

    Not the event loop's clock: some loops read the time once per turn, so it stands still while the loop is busy.
    """

    at: float
    """Seconds on the scale of the clock; infinity: never."""
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)

    @classmethod
    def after(cls, seconds: float | None, monotonic: Callable[[], float] = time.monotonic) -> Self:
        """Return the deadline that is so many seconds away; None: one that never comes."""
        return cls(math.inf if seconds is None else monotonic() + seconds, monotonic)

    @property
    def left(self) -> float:
        """The seconds until then; 0 when it is over."""
        return max(self.at - self.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        """Whether the moment has come."""
        return self.monotonic() >= self.at
