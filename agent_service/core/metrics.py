"""Counters of the caches, per namespace."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from agent_service.core.store_metrics import LatencyHistogram

__all__ = ["CacheMetrics", "LatencyHistogram", "LevelCounter", "NamespaceCounters"]

COUNTERS = (
    "hits",
    "misses",
    "stale",
    "sets",
    "increments",
    "deletes",
    "errors",
    "loads",
    "load_errors",
    "refreshes",
    "undecodable",
    "fill_rejected",
    "pattern_clears",
    "unreplicated",
)
DEFAULT_NAMESPACE = "default"


class LevelCounter:
    """The hits of one level of a cache."""

    __slots__ = ("hits",)

    def __init__(self) -> None:
        self.hits = 0


class NamespaceCounters:
    """Counters of one namespace. Backends add to the attributes directly, which takes nanoseconds."""

    __slots__ = (*COUNTERS, "l1")

    l1: LevelCounter
    """Hits in memory in front of Redis, which ``hits`` does not count."""

    hits: int
    misses: int
    stale: int
    """Misses that were answered with a value past its TTL, as the caller allowed."""
    sets: int
    increments: int
    deletes: int
    errors: int
    loads: int
    load_errors: int
    refreshes: int
    """Loads in the background, before the value is stale or after it was served stale."""
    undecodable: int
    fill_rejected: int
    pattern_clears: int
    """How often everything was invalidated because there were too many patterns."""
    unreplicated: int
    """Invalidations that too few replicas had confirmed in time; they are sent again."""

    def __init__(self) -> None:
        self.l1 = LevelCounter()
        self.reset()

    def reset(self) -> None:
        """Set every counter to zero."""
        for name in COUNTERS:
            setattr(self, name, 0)
        self.l1.hits = 0

    def take_back(self, level: str | None) -> None:
        """Undo one counted read: a hit at ``level``, or a miss (None)."""
        if level is None:
            self.misses -= 1
        elif level == "l1":
            self.l1.hits -= 1
        else:
            self.hits -= 1

    def retract_hit(self, level: str) -> None:
        """Count a miss instead of a hit at ``level``: the value found there could not be used."""
        self.take_back(level)
        self.misses += 1

    @property
    def all_hits(self) -> int:
        """Hits at every level."""
        return self.hits + self.l1.hits

    def hit_rate(self) -> float:
        """Hits in percent of reads, 0 to 100; 0.0 before the first read."""
        return _percent(self.all_hits, self.misses)

    def snapshot(self) -> dict[str, int]:
        """Return every counter by name; ``hits`` at all levels, ``l1_hits`` those in memory in front of Redis."""
        counted = {name: getattr(self, name) for name in COUNTERS}
        return {**counted, "hits": self.all_hits, "l1_hits": self.l1.hits}


class CacheMetrics:
    """All counters of a process's caches. Reading them is synchronous and never touches Redis."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._namespaces: dict[str, NamespaceCounters] = {DEFAULT_NAMESPACE: NamespaceCounters()}
        self._gauges: dict[str, Callable[[], object]] = {}
        self.redis_latency = LatencyHistogram()
        self._started = monotonic()
        self._last_reset = datetime.now(UTC)

    def namespace(self, name: str) -> NamespaceCounters:
        """Return the counters of a namespace; "" is the default one. The same object every time."""
        return self._namespaces.setdefault(name or DEFAULT_NAMESPACE, NamespaceCounters())

    def add_gauge(self, name: str, read: Callable[[], object]) -> None:
        """Show a current value (breaker state, journal length) under ``name`` in every snapshot."""
        self._gauges[name] = read

    def hit_rate(self, namespace: str = DEFAULT_NAMESPACE) -> float:
        """Return the hit rate of one namespace in percent; 0.0 for a namespace that was never used."""
        counters = self._namespaces.get(namespace or DEFAULT_NAMESPACE)
        return counters.hit_rate() if counters else 0.0

    def snapshot(self) -> dict[str, Any]:
        """Return the total ``hit_rate`` (percent), ``metrics`` by ``"{namespace}:{counter}"``, gauges and latencies."""
        counters = self._namespaces.copy().items()  # another thread may use a new namespace meanwhile
        return {
            "hit_rate": round(_percent(sum(c.all_hits for _, c in counters), sum(c.misses for _, c in counters)), 2),
            "metrics": {
                f"{name}:{field}": count for name, each in counters for field, count in each.snapshot().items()
            },
            **{name: read() for name, read in self._gauges.copy().items()},
            "latency": {"redis": self.redis_latency.snapshot()},
            "last_reset": self._last_reset.isoformat(),
            "uptime_seconds": round(self._monotonic() - self._started, 3),
        }

    def reset(self) -> None:
        """Set all counters and histograms to zero; ``uptime_seconds`` continues."""
        for counters in self._namespaces.copy().values():
            counters.reset()
        self.redis_latency.reset()
        self._last_reset = datetime.now(UTC)


def _percent(hits: int, misses: int) -> float:
    reads = hits + misses
    return 100.0 * hits / reads if reads else 0.0
