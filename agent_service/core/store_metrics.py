"""How long operations took. Those of stores: how many failed too, by the class of the store, and what they raise."""

from bisect import bisect_left
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import mul
from time import perf_counter
from typing import Any, Final

from agent_service.core.errors import AgentServiceError, ContextStoreError

__all__ = ["STORES", "LatencyHistogram", "Measured", "StoreMetrics", "store_error", "store_errors", "translated"]


class LatencyHistogram:
    """Durations in buckets 25 % apart from 10 microseconds to a minute: constant memory, percentiles within 25 %."""

    __slots__ = ("_counts", "count", "total")

    BOUNDS = tuple(accumulate(repeat(1.25, 70), mul, initial=1e-5))

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every observation."""
        self._counts = [0] * (len(self.BOUNDS) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        self._counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.count += 1
        self.total += seconds

    def percentile(self, percent: float) -> float:
        """Return the seconds that ``percent`` of them did not exceed (a bucket's upper bound); 0.0 if empty."""
        rank = self.count * percent / 100
        for position, seen in enumerate(accumulate(self._counts)):
            if seen and seen >= rank:
                return self.BOUNDS[min(position, len(self.BOUNDS) - 1)]
        return 0.0

    def snapshot(self) -> dict[str, float]:
        """Return count, mean and percentiles in milliseconds."""
        mean = self.total / self.count if self.count else 0.0
        percentiles = {f"p{percent}_ms": round(self.percentile(percent) * 1e3, 3) for percent in (50, 95, 99)}
        return {"count": self.count, "mean_ms": round(mean * 1e3, 3), **percentiles}


class _Counts:
    """The counters of the stores of one class."""

    __slots__ = ("errors", "latency")

    def __init__(self) -> None:
        self.latency = LatencyHistogram()
        self.errors = 0


class StoreMetrics:
    """Counts of the process's stores. Reading them is synchronous and asks no backend."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}

    def add(self, store: str, seconds: float, *, failed: bool) -> None:
        """Count one operation of a store."""
        counts = self._counts.get(store)
        if counts is None:
            counts = self._counts.setdefault(store, _Counts())
        counts.latency.observe(seconds)
        if failed:
            counts.errors += 1

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return, for each store, ``count``, ``errors``, and the mean and percentiles of latency in milliseconds."""
        counted = list(self._counts.items())
        return {store: {**each.latency.snapshot(), "errors": each.errors} for store, each in counted}

    def reset(self) -> None:
        """Reset all counters."""
        self._counts.clear()


STORES: Final = StoreMetrics()
"""Those of this process, shown as ``stores`` in ``get_redis_manager().get_metrics()``."""


@dataclass(slots=True)
class Measured(AbstractContextManager[Any]):
    """Counts the block as one operation of a store; it failed if it ends by an exception other than a cancellation.

    A class, because a generator-based context manager costs as much as a read in memory.
    """

    store: str
    started: float = field(default_factory=perf_counter, init=False)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        STORES.add(self.store, perf_counter() - self.started, failed=isinstance(exc, Exception))


def store_error(exc: Exception, name: str, action: str) -> ContextStoreError:
    """Return an error of a store as one of ours: itself if it is one, else one that tells what was under way.

    :param name: of the store's class, which is named for what is no error of this package.
    :param action: what was under way, as in "read a context".
    """
    if isinstance(exc, ContextStoreError):
        return exc
    reason = exc if isinstance(exc, AgentServiceError) else f"{name} raised {type(exc).__name__}: {exc}"
    return ContextStoreError(f"could not {action}: {reason}")


@dataclass(slots=True)
class translated(AbstractContextManager[Any]):  # noqa: N801 - reads as a statement
    """Raises what leaves the block as :func:`store_error` tells it, chained to its cause.

    :param name: of the store's class.
    :param action: what is under way.
    """

    name: str
    action: str

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, Exception):
            error = store_error(exc, self.name, self.action)
            if error is not exc:
                raise error from exc


@dataclass(slots=True)
class store_errors(translated):  # noqa: N801 - as above
    """Does what :class:`translated` does, and counts the block among the operations of the store, as Measured does."""

    started: float = field(default_factory=perf_counter, init=False)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        STORES.add(self.name, perf_counter() - self.started, failed=isinstance(exc, Exception))
        if exc is not None:
            translated.__exit__(self, kind, exc, traceback)
