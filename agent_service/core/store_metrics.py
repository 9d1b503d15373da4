"""How long the operations of stores took, and how many failed, by the class of the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

from agent_service.core.metrics import LatencyHistogram

__all__ = ["STORES", "StoreMetrics"]


class StoreMetrics:
    """Counts of the process's stores. Reading them is synchronous and asks no backend."""

    def __init__(self) -> None:
        self._latency: dict[str, LatencyHistogram] = {}
        self._errors: dict[str, int] = {}

    @contextmanager
    def measured(self, store: str) -> Iterator[None]:
        """Count one operation of a store, its duration, and whether it raised."""
        started = perf_counter()
        try:
            yield
        except Exception:
            self._errors[store] = self._errors.get(store, 0) + 1
            raise
        finally:
            self._latency.setdefault(store, LatencyHistogram()).observe(perf_counter() - started)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return, for each store, ``count``, ``errors``, and the mean and percentiles of latency in milliseconds."""
        return {
            store: {**latency.snapshot(), "errors": self._errors.get(store, 0)}
            for store, latency in list(self._latency.items())
        }

    def reset(self) -> None:
        """Forget everything."""
        self._latency.clear()
        self._errors.clear()


STORES: Final = StoreMetrics()
"""Those of this process, shown as ``stores`` in ``get_redis_manager().get_metrics()``."""
