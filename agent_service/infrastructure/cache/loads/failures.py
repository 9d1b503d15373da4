"""Failures of loads, remembered for a while so that what fails is not tried again at once."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

from agent_service.core.exception_copies import bare_copy
from agent_service.core.memo import size_of

__all__ = ["Failures"]

_MOST = 10_000
_MOST_BYTES = 16 << 20


class Failures:
    """The latest failure of each key, until its back-off is over. The oldest is forgotten first.

    At most 10,000, and 16 MiB of keys and of the texts and bytes that the exceptions were raised with.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.known: OrderedDict[str, tuple[float, Exception, int, str]] = OrderedDict()
        """By key: until when, the failure, its size, and what the load saw of its context."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.known)

    def remember(self, key: str, exc: Exception, seconds: float, seen: str = "") -> None:
        """Remember a failure, without its traceback, which would keep the frames of the load alive.

        :param seen: what the load saw of its context; see ``LoadPolicy.seen``.
        """
        now, size = self._monotonic(), _size(key, exc)
        self._drop(key)
        self._bytes += size
        self.known[key] = (now + seconds, bare_copy(exc), size, seen)
        with suppress(RuntimeError):  # another thread changed it: the next failure goes on
            while len(self.known) > 1:
                oldest, (until, *_) = next(iter(self.known.items()))
                # Where all have the same back-off, those that are over are the oldest.
                if len(self.known) <= _MOST and self._bytes <= _MOST_BYTES and until > now:
                    return
                self._drop(oldest)

    def _drop(self, key: str) -> None:
        dropped = self.known.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped[2]

    def recent(self, key: str, seen: str = "") -> Exception | None:
        """Return a copy of the failure for which the key is not to be loaded now; None: it may be loaded.

        :param seen: what the load would see of its context; the failure of one that saw something else does not count.
        """
        found = self.known.get(key)
        if found is None or found[3] != seen:
            return None
        until, exc, *_ = found
        if until <= self._monotonic():
            self._drop(key)
            return None
        return bare_copy(exc)

    def forget(self, keys: Iterable[str]) -> None:
        """Let these keys be loaded again at once."""
        for key in keys:
            self._drop(key)

    def clear(self) -> None:
        """Let every key be loaded again at once."""
        self.known.clear()
        self._bytes = 0


def _size(key: str, exc: Exception) -> int:
    held = (*exc.args, *vars(exc).values())
    return size_of((key, *[each for each in held if isinstance(each, str | bytes)]))
