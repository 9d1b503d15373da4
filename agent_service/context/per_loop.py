"""Resources that belong to an event loop, one for each loop that uses a store."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from agent_service.core.forking import renew_after_fork

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a resource for each event loop when it first asks, and again in a forked process.

    :param make: called on the loop.
    :param close: awaited on the loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._made: dict[asyncio.AbstractEventLoop, tuple[int, T]] = {}
        self._renew_lock()
        renew_after_fork(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the running loop's resource."""
        loop = asyncio.get_running_loop()
        found = self._made.get(loop)
        if found is not None and found[0] == os.getpid():
            return found[1]
        resource = self._make()
        with self._lock:
            for other in [each for each in self._made if each.is_closed()]:
                del self._made[other]
            self._made[loop] = (os.getpid(), resource)
        return resource

    async def aclose(self) -> None:
        """Close the resources of every loop that still runs, each on its own; a later :meth:`get` makes new ones."""
        here = asyncio.get_running_loop()
        with self._lock:
            made, self._made = self._made, {}
        for loop, (pid, resource) in made.items():
            if pid != os.getpid():
                continue
            if loop is here:
                await self._close(resource)
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_await(self._close(resource)), loop))


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable
