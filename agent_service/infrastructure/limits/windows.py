"""What was taken of windows that slide, in the memory of this process: the same as ``limit_take.lua`` does in Redis.

A window is cut into slots. A weight counts until the whole of its slot is out of the window, so never more than the
quota is taken in any stretch of the window's length. What it costs does not depend on the weight or the number of
calls: a window is at most 61 numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_service.infrastructure.limits.rates import Rate

__all__ = ["Outcome", "TakenWeights"]


class Outcome(NamedTuple):
    """What became of one call. Milliseconds."""

    taken: bool
    wait: int
    """Until it could be taken."""
    left: tuple[tuple[int, int], ...]
    """For each rate: what is left of it, and the time until all of it is back."""


@dataclass(slots=True)
class TakenWeights:
    """The weights by slot, for each rate of a limiter."""

    by_slot: list[dict[int, int]] = field(default_factory=list)

    def take(self, rates: Sequence[Rate], weight: int, now: int) -> Outcome:
        """Take a weight of every window, or, where one of them has too little left, of none.

        :param now: milliseconds.
        """
        self.by_slot = [
            {slot: taken for slot, taken in slots.items() if _back(rate, slot, now) > 0}
            for rate, slots in zip(rates, self.by_slot or [{} for _ in rates], strict=True)
        ]
        windows = list(zip(rates, self.by_slot, strict=True))
        wait = max(_wait(rate, slots, weight, now) for rate, slots in windows)
        if wait == 0 and weight:
            for rate, slots in windows:
                slot = now // rate.slot
                slots[slot] = slots.get(slot, 0) + weight
        left = [
            (max(rate.quota - sum(slots.values()), 0), _back(rate, max(slots), now) if slots else 0)
            for rate, slots in windows
        ]
        return Outcome(wait == 0, wait, tuple(left))


def _back(rate: Rate, slot: int, now: int) -> int:
    """Return how long a slot counts."""
    return (slot + 1) * rate.slot + rate.milliseconds - now


def _wait(rate: Rate, slots: dict[int, int], weight: int, now: int) -> int:
    missing, wait = sum(slots.values()) + weight - rate.quota, 0
    for slot in sorted(slots):
        if missing <= 0:
            break
        wait = _back(rate, slot, now)
        missing -= slots[slot]
    return wait
