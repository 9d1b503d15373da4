"""How long operations took. Those of stores: how many failed too, by the class of the store, and what they raise."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from agent_service.core.errors import AgentServiceError, ContextStoreError
from agent_service.core.histogram import SECONDS, Histogram
from agent_service.core.measured import Sample, measured_by

__all__ = ["STORES", "Measured", "StoreMetrics", "store_error", "store_errors", "translated"]


class _Counts:
    """The counters of the stores of one class."""

    __slots__ = ("errors", "latency")

    def __init__(self) -> None:
        self.latency = Histogram()
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
        latency = counts.latency
        latency.counts[bisect_left(SECONDS, seconds)] += 1
        latency.total += seconds
        if failed:
            counts.errors += 1

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return, for each store, ``count``, ``errors``, and the mean and percentiles of latency in milliseconds."""
        counted = list(self._counts.items())
        return {store: {**each.latency.snapshot(), "errors": each.errors} for store, each in counted}

    def samples(self) -> Iterator[Sample]:
        """Yield the duration and the errors of each store's operations."""
        for store, each in list(self._counts.items()):
            yield Sample("store_operation_duration_seconds", each.latency, (store,))
            yield Sample("store_errors", each.errors, (store,))

    def reset(self) -> None:
        """Reset all counters."""
        self._counts.clear()


STORES: Final = StoreMetrics()
"""Those of this process, shown as ``stores`` in ``get_redis_manager().get_metrics()``."""
measured_by("stores", STORES.samples)


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
