"""What the pools and subscriptions of this process's databases measure, by the role of the database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, Protocol

from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection

from agent_service.core.histogram import Histogram
from agent_service.core.living import Living
from agent_service.core.measured import Sample, measured_by
from agent_service.infrastructure.database.engine.pool import ConnectionPool

__all__ = ["DatabaseMetrics", "MeasuredPool", "metrics_of"]

_ROLES: Final = {"DATABASE_URL": "primary", "DATABASE_REPLICA_URL": "replica"}
"""By the setting that names the database. The role of any other one is ``other``."""


class _Database(Protocol):
    """An open database manager."""

    def get_metrics(self) -> Mapping[str, int]: ...

    def feed_metrics(self) -> Mapping[str, int]: ...


@dataclass(slots=True)
class DatabaseMetrics:
    """What all databases of one role count, those that were closed among them."""

    waits: Histogram = field(default_factory=Histogram)
    """Seconds until somebody had a connection of a pool; connecting counts, where that was necessary."""
    failures: int = 0
    """How often somebody got none: the pool stayed exhausted, or the server could not be reached."""
    open: Living[_Database] = field(default_factory=Living)

    def samples(self, role: str) -> Iterator[Sample]:
        """Yield what was counted, and the state of what is open."""
        pools = [each.get_metrics() for each in self.open.all()]
        for state in ("in_use", "idle"):
            yield Sample("db_pool_connections", sum(each[state] for each in pools), (role, state))
        yield Sample("db_pool_connections_limit", sum(each["limit"] for each in pools), (role,))
        yield Sample("db_pool_wait_seconds", self.waits, (role,))
        yield Sample("db_pool_failures", self.failures, (role,))


_by_role: Final = {role: DatabaseMetrics() for role in (*_ROLES.values(), "other")}


def metrics_of(setting: str) -> DatabaseMetrics:
    """Return what counts for a database whose URL comes from a setting."""
    return _by_role[_ROLES.get(setting, "other")]


def _samples() -> Iterator[Sample]:
    for role, each in _by_role.items():
        yield from each.samples(role)
    feeds = [database.feed_metrics() for each in _by_role.values() for database in each.open.all()]
    yield Sample("feed_subscriptions", sum(each["subscriptions"] for each in feeds))
    yield Sample("feed_sessions", sum(each["sessions"] for each in feeds))


measured_by("database", _samples)


class MeasuredPool(ConnectionPool):
    """A pool that measures how long getting a connection takes. ``metrics`` is set once it is made."""

    # SQLAlchemy logs under the name of the pool's module and class: its lines are to stay out of ours.
    __module__ = AsyncAdaptedQueuePool.__module__

    metrics: DatabaseMetrics

    def connect(self) -> PoolProxiedConnection:
        started = perf_counter()
        try:
            connection = super().connect()
        except Exception:
            self.metrics.failures += 1
            raise
        self.metrics.waits.observe(perf_counter() - started)
        return connection

    def recreate(self) -> Any:
        pool = super().recreate()
        pool.metrics = self.metrics  # type: ignore[attr-defined]
        return pool
