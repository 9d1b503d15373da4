"""Reads that must not lag, because their result is cached or decides what is written.

A cache keeps the result of a load until it is invalidated. An invalidation follows its commit, and breaks the loads
that began before it. A load that begins later must see that commit, or the old value stays until its TTL is over; a
replica that lags would not show it. So a cache marks the context of its loads here, and the code that opens a session
checks the mark.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["CURRENT_READS", "must_be_current", "reading_what_is_current"]

CURRENT_READS: Final[ContextVar[bool]] = ContextVar("agent_service_current_reads", default=False)
"""True where reads must not lag. A load that has a context of its own sets it there for good."""


@contextmanager
def reading_what_is_current() -> Iterator[None]:
    """Have all reads of the block see what was committed before they began."""
    token = CURRENT_READS.set(True)
    try:
        yield
    finally:
        CURRENT_READS.reset(token)


def must_be_current() -> bool:
    """Whether a read made here must see what was committed before it began."""
    return CURRENT_READS.get()
