"""One meaning of "time to live" for all caches and stores."""

import math
from datetime import timedelta
from enum import Enum
from typing import Final, TypeAlias

from agent_service.core.errors import CacheValueError

__all__ = ["MAX_TTL", "NEVER", "TTL", "Never", "resolve_ttl"]

MAX_TTL: Final = 100 * 365 * 86_400.0
"""The longest finite TTL in seconds (100 years). Redis refuses a TTL that overflows its millisecond stamps."""


class Never(Enum):
    """The type of :data:`NEVER`."""

    NEVER = "never"

    def __repr__(self) -> str:
        return "NEVER"


NEVER: Final = Never.NEVER
"""The TTL of an entry that does not expire."""

TTL: TypeAlias = int | float | timedelta | Never
"""Seconds, a timedelta, or :data:`NEVER`."""


def resolve_ttl(ttl: TTL | None, default: float, *, name: str = "ttl") -> float:
    """Return a caller's TTL in seconds; infinity means "never expires".

    A result of 0 or less means "do not store".

    :param ttl: seconds, a timedelta, :data:`NEVER`, or None for the default.
    :param default: seconds used for None.
    :param name: what to call the argument in an error.
    :raises CacheValueError: for NaN, infinity, bool, any other type, or more than :data:`MAX_TTL` seconds.
    """
    if ttl is None:
        return default
    if ttl is NEVER:
        return math.inf
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, int | float) and not isinstance(ttl, bool):
        seconds = ttl
    else:
        raise CacheValueError(
            f"{name} must be seconds (int or float), a timedelta, NEVER or None, not {type(ttl).__name__}: {ttl!r:.80}"
        )
    if not seconds <= MAX_TTL or seconds == -math.inf:
        raise CacheValueError(
            f"{name} must be a finite number of seconds up to {MAX_TTL:.0f}, got {seconds!r:.80}; "
            "use NEVER for an entry that does not expire"
        )
    return float(seconds)
