"""Notice that the process is asked to stop, before the server waits for its connections.

Servers wait for open connections before they end the lifespan, and a stream that waits for the lifespan to end keeps
its connection open: each would wait for the other. So the request itself is noticed, in the two ways in which it comes:

- As SIGTERM or SIGINT. The handler that the server has installed is wrapped: first every service of the process is
  told, then the server's handler does what it always did.
- As an event of multiprocessing: hypercorn sends no signal to its workers, and lets them look at this event.
"""

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Final, TypeAlias

__all__ = ["told_to_stop"]

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LOOK: Final = 0.1
"""Seconds between two looks at an event of multiprocessing, which is as often as hypercorn looks."""

_listeners: Final[set[Callable[[], None]]] = set()
_links: Final[dict[signal.Signals, "_Link"]] = {}


@asynccontextmanager
async def told_to_stop(stopping: asyncio.Event) -> AsyncIterator[None]:
    """Set an event when the process is asked to stop, for as long as the block runs.

    A signal that is ignored, or that ends the process at once, stays as it is. Outside of the main thread no signal is
    noticed, because no handler can be set there.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        with suppress(RuntimeError):  # the loop was closed without ending the block
            loop.call_soon_threadsafe(stopping.set)

    async with _told_by_parent(stopping):
        with _told_by_signals(stop):
            yield


@asynccontextmanager
async def _told_by_parent(stopping: asyncio.Event) -> AsyncIterator[None]:
    arguments: Any = getattr(multiprocessing.current_process(), "_kwargs", {})
    asked = arguments.get("shutdown_event")
    if asked is None:
        yield
        return

    async def look() -> None:
        while not asked.is_set():  # noqa: ASYNC110 - another process sets it
            await asyncio.sleep(_LOOK)
        stopping.set()

    looking = asyncio.create_task(look(), name="agent-service-stop")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})


class _Link:
    """A signal handler that tells the listeners, and then calls the handler that was there before."""

    def __init__(self, previous: _Handler) -> None:
        self.previous = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        for tell in tuple(_listeners):
            tell()
        self.previous(signum, frame)


@contextmanager
def _told_by_signals(tell: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _listeners.add(tell)
    _wrap_handlers()
    try:
        yield
    finally:
        _listeners.discard(tell)
        if not _listeners:
            _restore_handlers()


def _wrap_handlers() -> None:
    for signum in _SIGNALS:
        current = signal.getsignal(signum)
        if callable(current) and current is not _links.get(signum) and not _of_runner(current):
            _links[signum] = _Link(current)
            signal.signal(signum, _links[signum])


def _of_runner(handler: object) -> bool:
    """Say that a handler is that of asyncio.run: it is for this run alone, and cancels the lifespan with all else."""
    return isinstance(handler, partial) and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)


def _restore_handlers() -> None:
    while _links:
        signum, link = _links.popitem()
        previous = link.previous
        # Whoever has installed a handler since calls the link, which goes on to pass signals on.
        if signal.getsignal(signum) is link:
            signal.signal(signum, previous)
