"""A rate: so much weight in so many seconds."""

import re
from dataclasses import dataclass
from typing import Final

from agent_service.core.errors import ConfigurationError

__all__ = ["Rate", "checked_rates"]

_TEXT: Final = re.compile(
    r"\s*(\d{1,18})\s*(?:/|\sper\s)\s*(\d{1,9})?\s*(second|minute|hour|day|week)s?\s*", re.IGNORECASE
)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_SLOTS: Final = 60
"""The slots of a window: what was taken comes back by the slot, so at most a sixtieth of the window late."""
_MOST: Final = 10**15
"""The largest quota: sums of that size are exact in Lua."""
_LONGEST: Final = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``quota`` in any ``seconds``: not in those of a calendar, but in whatever stretch of that length.

    :param quota: the most weight, at least 1.
    :param seconds: from 0.001 to those of 366 days.
    :raises ConfigurationError: for a quota or length that cannot be used.
    """

    quota: int
    seconds: float

    def __post_init__(self) -> None:
        if type(self.quota) is not int or not 1 <= self.quota <= _MOST:
            raise ConfigurationError(f"quota must be an int from 1 to {_MOST}, got {self.quota!r:.80}")
        if (
            isinstance(self.seconds, bool)
            or not isinstance(self.seconds, int | float)
            or not 0.001 <= self.seconds <= _LONGEST
        ):
            raise ConfigurationError(f"seconds must be a number from 0.001 to {_LONGEST}, got {self.seconds!r:.80}")

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read "20/minute", "1000 per day" or "5/10 seconds".

        :raises ConfigurationError: for another text.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ConfigurationError(
                f"a rate must read like 20/minute, 1000 per day or 5/10 seconds, got {text!r:.80}; units are second, "
                "minute, hour, day and week"
            )
        return cls(int(found[1]), int(found[2] or 1) * _SECONDS[found[3].lower()])

    @property
    def milliseconds(self) -> int:
        """The length of the window."""
        return round(self.seconds * 1000)

    @property
    def slot(self) -> int:
        """Milliseconds of a slot."""
        return -(-self.milliseconds // _SLOTS)

    def __str__(self) -> str:
        return f"{self.quota} in {self.seconds:g} s"


def checked_rates(rates: tuple[str | Rate, ...]) -> tuple[Rate, ...]:
    """Return the rates of a limiter, the shortest first.

    :raises ConfigurationError: for none, for two of one length, and for what cannot be read.
    """
    found = sorted(
        [each if isinstance(each, Rate) else Rate.parse(each) for each in rates], key=lambda rate: rate.seconds
    )
    if not found:
        raise ConfigurationError('a limiter needs a rate, such as "20/minute"')
    if len({each.milliseconds for each in found}) < len(found):
        raise ConfigurationError("a limiter must not have two rates of the same length; keep the smaller quota")
    return tuple(found)
