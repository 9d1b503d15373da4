"""What a store opens on each event loop that uses it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Generic, TypeVar

from agent_service.core.loop_registry import LoopRegistry, run_on_their_loops

__all__ = ["PerLoop"]

T = TypeVar("T")

_PATIENCE: Final = 10.0
"""Seconds that other loops have to close what is theirs, before it is left to them."""


class PerLoop(Generic[T]):
    """Makes a resource for each event loop when it first asks, and again in a forked process.

    :param make: called on the loop.
    :param close: awaited on the loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._made = LoopRegistry[T]()

    def get(self) -> T:
        """Return the running loop's resource."""
        return self._made.get(self._make)

    async def aclose(self) -> None:
        """Close the resources of every loop that still runs, each on its own; a later :meth:`get` makes new ones.

        A loop that does not get to it within 10 seconds is not waited for.
        """
        made = self._made.pop_all()
        await run_on_their_loops(
            [(loop, partial(self._close, resource)) for loop, resource in made], patience=_PATIENCE
        )
