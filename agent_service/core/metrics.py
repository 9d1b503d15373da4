"""Counters of the caches, per namespace."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from agent_service.core.histogram import Histogram
from agent_service.core.measured import Sample

__all__ = ["CacheMetrics", "Histogram", "LevelCounter", "NamespaceCounters"]

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

    __slots__ = (*COUNTERS, "_shown", "l1", "load_seconds")

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
    load_seconds: Histogram
    """How long loaders took that gave a value or raised; those that were cancelled are left out."""

    def __init__(self) -> None:
        self.l1 = LevelCounter()
        self.load_seconds = Histogram()
        self.reset()

    def reset(self) -> None:
        """Set every counter to zero."""
        for name in COUNTERS:
            setattr(self, name, 0)
        self.l1.hits = 0
        self.load_seconds.reset()
        self._shown: dict[tuple[str, ...], int] = {}

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

    def samples(self, namespace: str) -> Iterator[Sample]:
        """Yield what was counted. Unlike the attributes, which :meth:`take_back` lowers, it never goes back."""
        failed = self.load_errors
        counted = {
            ("cache_requests", "hit"): self.hits,
            ("cache_requests", "l1_hit"): self.l1.hits,
            ("cache_requests", "stale"): self.stale,
            ("cache_requests", "miss"): self.misses - self.stale,
            ("cache_loads", "ok"): self.load_seconds.count - failed,
            ("cache_loads", "error"): failed,
            ("cache_refreshes",): self.refreshes,
            ("cache_sets",): self.sets,
            ("cache_increments",): self.increments,
            ("cache_deletes",): self.deletes,
            ("cache_errors",): self.errors,
            ("cache_undecodable",): self.undecodable,
            ("cache_fill_rejected",): self.fill_rejected,
            ("cache_pattern_clears",): self.pattern_clears,
            ("cache_unreplicated",): self.unreplicated,
        }
        shown = self._shown
        for name, count in counted.items():
            shown[name] = max(count, shown.get(name, 0))
            yield Sample(name[0], shown[name], (namespace, *name[1:]))
        yield Sample("cache_load_duration_seconds", self.load_seconds, (namespace,))


class CacheMetrics:
    """All counters of a process's caches. Reading them is synchronous and never touches Redis."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._namespaces: dict[str, NamespaceCounters] = {DEFAULT_NAMESPACE: NamespaceCounters()}
        self._gauges: dict[str, Callable[[], object]] = {}
        self.redis_latency = Histogram()
        self.redis_errors: Counter[str] = Counter()
        """Operations on Redis that failed: ``unavailable``, ``refused``, ``denied`` or ``command``."""
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

    def samples(self) -> Iterator[Sample]:
        """Yield the counters of each namespace, and the operations on Redis."""
        for name, counters in self._namespaces.copy().items():
            yield from counters.samples(name)
        yield Sample("redis_command_duration_seconds", self.redis_latency)
        for kind, count in self.redis_errors.copy().items():
            yield Sample("redis_errors", count, (kind,))

    def reset(self) -> None:
        """Set all counters and histograms to zero; ``uptime_seconds`` continues."""
        for counters in self._namespaces.copy().values():
            counters.reset()
        self.redis_latency.reset()
        self.redis_errors.clear()
        self._last_reset = datetime.now(UTC)


def _percent(hits: int, misses: int) -> float:
    reads = hits + misses
    return 100.0 * hits / reads if reads else 0.0
