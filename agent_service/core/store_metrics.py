"""How long the operations of stores took, and how many failed, by the class of the store."""

from time import perf_counter
from typing import Any, Final

from agent_service.core.metrics import LatencyHistogram

__all__ = ["STORES", "Measured", "StoreMetrics"]


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


class Measured:
    """Counts the block as one operation of a store; it failed if it ends by an exception other than a cancellation.

    A class, because a generator-based context manager costs as much as a read in memory.
    """

    __slots__ = ("_started", "_store")

    def __init__(self, store: str) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        STORES.add(self._store, perf_counter() - self._started, failed=kind is not None and issubclass(kind, Exception))
