"""Notice that the process is asked to stop, at the signal.

Servers wait for open connections before they end the lifespan, and a stream that waits for the lifespan to end keeps
its connection open: each would wait for the other. So the handlers of SIGTERM and SIGINT that the server has installed
are wrapped: first every service of the process is told, then the server's own handler does what it always did.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeAlias

__all__ = ["told_of_signals"]

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_listeners: Final[set[Callable[[], None]]] = set()
_links: Final[dict[signal.Signals, "_Link"]] = {}


class _Link:
    """A signal handler that tells the listeners, and then calls the handler that was there before."""

    def __init__(self, previous: _Handler) -> None:
        self.previous = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        for tell in tuple(_listeners):
            tell()
        self.previous(signum, frame)


@contextmanager
def told_of_signals(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` within a handler of SIGTERM or SIGINT for as long as the block runs.

    Only signals that something handles: one that is ignored, or ends the process at once, stays as it is. Outside of
    the main thread, where no handler can be set, nothing is noticed.
    """
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
        if callable(current) and current is not _links.get(signum):
            _links[signum] = _Link(current)
            signal.signal(signum, _links[signum])


def _restore_handlers() -> None:
    while _links:
        signum, link = _links.popitem()
        # Whoever has installed a handler since calls the link, which goes on to pass signals on.
        if signal.getsignal(signum) == link:
            signal.signal(signum, link.previous)
