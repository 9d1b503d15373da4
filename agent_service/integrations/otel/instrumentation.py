"""Switching traces and metrics on and off."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import TracerProvider

from agent_service.core.tracing import TRACING, Server
from agent_service.infrastructure.database.engine.servers import PoolState, pools, watch_statements
from agent_service.integrations.otel.names import server_attributes
from agent_service.integrations.otel.observer import OtelObserver

__all__ = ["instrument", "uninstrument"]

_SCOPE: Final = "agent_service"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.40.0"
_OPERATIONS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})

_stop: Callable[[], None] | None = None


def instrument(tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> None:
    """Take traces and metrics of all that this process does with this package from now on.

    Calling it again replaces the providers. Engines, clients and caches that were made before are included.

    :param tracer_provider: None: the one that is set for the process.
    :param meter_provider: None: the one that is set for the process.
    """
    global _stop
    uninstrument()
    installed = version("agent-service")
    meter = metrics.get_meter(_SCOPE, installed, meter_provider, _SCHEMA)
    observer = OtelObserver(trace.get_tracer(_SCOPE, installed, tracer_provider, _SCHEMA), meter)
    _observe_pools(meter)
    _stop = watch_statements(partial(_operated, observer))
    TRACING.observer = observer


def uninstrument() -> None:
    """Take no more traces and metrics. Does nothing where :func:`instrument` was not called."""
    global _stop
    TRACING.observer = None
    if _stop is not None:
        _stop()
        _stop = None


def _operated(
    observer: OtelObserver, server: Server, statement: str, seconds: float, error: BaseException | None
) -> None:
    operation = statement.lstrip()[:6].upper()
    observer.operated(server, operation if operation in _OPERATIONS else "", seconds, error)


def _observe_pools(meter: Meter) -> None:
    meter.create_observable_up_down_counter(
        "db.client.connection.count",
        [_count],
        unit="{connection}",
        description="The number of connections that are currently in state described by the state attribute.",
    )
    meter.create_observable_up_down_counter(
        "db.client.connection.max",
        [_limit],
        unit="{connection}",
        description="The maximum number of open connections allowed.",
    )


def _count(_options: CallbackOptions) -> Iterable[Observation]:
    for pool, attributes in _by_name():
        for state, number in (("used", pool.used), ("idle", pool.idle)):
            yield Observation(number, {**attributes, "db.client.connection.state": state})


def _limit(_options: CallbackOptions) -> Iterable[Observation]:
    for pool, attributes in _by_name():
        yield Observation(pool.limit, attributes)


def _by_name() -> Iterable[tuple[PoolState, dict[str, str | int]]]:
    """Return the pools, those of one database added up, each with the name that the conventions give it."""
    found: dict[Server, PoolState] = {}
    for each in pools() if TRACING.observer is not None else ():
        before = found.get(each.server, PoolState(each.server, 0, 0, 0))
        found[each.server] = PoolState(
            each.server, before.used + each.used, before.idle + each.idle, before.limit + each.limit
        )
    for server, pool in found.items():
        port = f":{server.port}" if server.port else ""
        name = f"{server.address or server.system}{port}/{server.namespace or ''}"
        yield pool, {**server_attributes(server), "db.client.connection.pool.name": name}
