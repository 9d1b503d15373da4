"""What belongs to an event loop: one for each loop of the process."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from agent_service.core.forking import renew_after_fork
from agent_service.core.logging import logger

__all__ = ["LoopRegistry", "PerLoop", "run_on_their_loops"]

T = TypeVar("T")

_PATIENCE: Final = 10.0
"""Seconds that other loops have to close what is theirs, before it is left to them."""


class LoopRegistry(Generic[T]):
    """Resources by event loop. Invariants:

    1. A loop has one. It is made, used and closed on that loop only.
    2. What belongs to a closed loop is forgotten with the next one that is put in: nothing can close it any more.
    3. A forked process starts with none. What it inherited stays referenced, so that no finaliser in the child touches
       the sockets that the parent still uses.
    4. Any thread may look at all of them.
    """

    def __init__(self) -> None:
        self._made: dict[asyncio.AbstractEventLoop, T] = {}
        self._inherited: list[dict[asyncio.AbstractEventLoop, T]] = []
        self._lock = threading.Lock()
        renew_after_fork(self._leave_to_parent)

    def find(self) -> T | None:
        """Return what the running loop has."""
        return self._made.get(asyncio.get_running_loop())

    def get(self, make: Callable[[], T]) -> T:
        """Return what the running loop has, or what ``make`` gives, which it has from now on."""
        found = self._made.get(asyncio.get_running_loop())
        return self.put(make()) if found is None else found

    def put(self, resource: T) -> T:
        """Replace the resource of the running loop, if it has one, and return the new one."""
        with self._lock:
            for other in [each for each in self._made if each.is_closed()]:
                del self._made[other]
            self._made[asyncio.get_running_loop()] = resource
        return resource

    def pop(self) -> T | None:
        """Take the running loop's resource out, if it has one."""
        with self._lock:
            return self._made.pop(asyncio.get_running_loop(), None)

    def pop_all(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Take the resources of all loops out."""
        with self._lock:
            made, self._made = self._made, {}
        return list(made.items())

    def items(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Return the loops that are not closed, each with its resource."""
        with self._lock:
            return [(loop, resource) for loop, resource in self._made.items() if not loop.is_closed()]

    def _leave_to_parent(self) -> None:
        self._inherited.append(self._made)
        self._made = {}
        self._lock = threading.Lock()


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


async def run_on_their_loops(
    works: Iterable[tuple[asyncio.AbstractEventLoop, Callable[[], Awaitable[None]]]], *, patience: float
) -> None:
    """Run each work on its own loop, all at once. A loop that does not run is left out, and so is its work.

    A caller cannot mend what fails on another loop, so that is logged.

    :param patience: seconds that other loops have; what takes longer there goes on without being waited for.
    :raises Exception: what a work of the running loop has raised; by then the others are over, or out of time.
    """
    here = asyncio.get_running_loop()
    own: list[Coroutine[Any, Any, None]] = []
    elsewhere: list[asyncio.Future[None]] = []
    for loop, work in works:
        if loop is here:
            own.append(_call(work))
        elif loop.is_running():
            call = _call(work)
            try:
                elsewhere.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, loop)))
            except RuntimeError:  # the loop was closed just now
                call.close()
    outcomes = await asyncio.gather(*own, return_exceptions=True)
    if elsewhere:
        done, _ = await asyncio.wait(elsewhere, timeout=patience)
        for each in done:
            if not each.cancelled() and (error := each.exception()) is not None:
                logger.warning("Something failed on another event loop: %s: %s", type(error).__name__, error)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def _call(work: Callable[[], Awaitable[None]]) -> Coroutine[Any, Any, None]:
    async def call() -> None:
        await work()

    return call()
