"""Failures of loads, remembered for a while so that what fails is not tried again at once."""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

__all__ = ["Failures"]

_MOST = 10_000


class Failures:
    """The latest failure of each key, until its back-off is over. Bounded; the oldest is forgotten first."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed: OrderedDict[str, tuple[float, Exception, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def remember(self, key: str, exc: Exception, seconds: float, seen: str = "") -> None:
        """Remember a failure, without its traceback, which would keep the frames of the load alive.

        :param seen: what the load saw of its context; see ``LoadPolicy.seen``.
        """
        self._failed.pop(key, None)
        if len(self._failed) >= _MOST:
            self._failed.popitem(last=False)
        self._failed[key] = (self._monotonic() + seconds, _bare(exc), seen)

    def standing(self, key: str, seen: str = "") -> Exception | None:
        """Give a copy of the failure for which the key is not to be loaded now; None: it may be loaded.

        :param seen: what the load would see of its context; the failure of one that saw something else does not count.
        """
        found = self._failed.get(key)
        if found is None or found[2] != seen:
            return None
        until, exc, _ = found
        if until <= self._monotonic():
            self._failed.pop(key, None)  # another thread may have
            return None
        return _bare(exc)

    def forget(self, keys: Iterable[str]) -> None:
        """Let these keys be loaded again at once."""
        if self._failed:
            for key in keys:
                self._failed.pop(key, None)

    def clear(self) -> None:
        """Let every key be loaded again at once."""
        self._failed.clear()


def _bare(exc: Exception) -> Exception:
    try:
        twin = copy.copy(exc)
    except Exception:  # noqa: BLE001 - an exception that cannot be copied is shared
        twin = exc
    if type(twin) is not type(exc):
        twin = exc
    return twin.with_traceback(None)
