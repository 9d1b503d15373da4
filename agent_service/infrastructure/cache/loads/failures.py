"""Failures of loads, remembered for a while so that what fails is not tried again at once."""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

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
        self._failed: OrderedDict[str, tuple[float, Exception, int, str]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._failed)

    def remember(self, key: str, exc: Exception, seconds: float, seen: str = "") -> None:
        """Remember a failure, without its traceback, which would keep the frames of the load alive.

        :param seen: what the load saw of its context; see ``LoadPolicy.seen``.
        """
        now, size = self._monotonic(), _size(key, exc)
        self._drop(key)
        self._bytes += size
        self._failed[key] = (now + seconds, _bare(exc), size, seen)
        with suppress(RuntimeError):  # another thread changed it: the next failure goes on
            while len(self._failed) > 1:
                oldest, (until, *_) = next(iter(self._failed.items()))
                # Where all have the same back-off, those that are over are the oldest.
                if len(self._failed) <= _MOST and self._bytes <= _MOST_BYTES and until > now:
                    return
                self._drop(oldest)

    def _drop(self, key: str) -> None:
        dropped = self._failed.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped[2]

    def recent(self, key: str, seen: str = "") -> Exception | None:
        """Return a copy of the failure for which the key is not to be loaded now; None: it may be loaded.

        :param seen: what the load would see of its context; the failure of one that saw something else does not count.
        """
        found = self._failed.get(key)
        if found is None or found[3] != seen:
            return None
        until, exc, *_ = found
        if until <= self._monotonic():
            self._drop(key)
            return None
        return _bare(exc)

    def forget(self, keys: Iterable[str]) -> None:
        """Let these keys be loaded again at once."""
        if self._failed:
            for key in keys:
                self._drop(key)

    def clear(self) -> None:
        """Let every key be loaded again at once."""
        self._failed.clear()
        self._bytes = 0


def _size(key: str, exc: Exception) -> int:
    held = (*exc.args, *vars(exc).values())
    return size_of((key, *[each for each in held if isinstance(each, str | bytes)]))


def _bare(exc: Exception) -> Exception:
    try:
        twin = copy.copy(exc)
    except Exception:  # noqa: BLE001 - an exception that cannot be copied is shared
        twin = exc
    if type(twin) is not type(exc):
        twin = exc
    return twin.with_traceback(None)
