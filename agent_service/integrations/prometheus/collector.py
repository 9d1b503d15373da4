"""What this package measures, as families of prometheus_client."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from agent_service.integrations.metrics.catalogue import FAMILIES, PREFIX, Family
from agent_service.integrations.metrics.reading import Buckets, Readings, read
from agent_service.integrations.metrics.snapshot import VERSION, ProcessSnapshot

__all__ = ["AgentServiceCollector", "FleetCollector"]

_BUILD: Final = f"{PREFIX}build_info"
_BUILD_HELP: Final = "The version of agent_service, as a label; the value is 1."


class AgentServiceCollector:
    """All metrics of this process, read when they are collected, without I/O.

    ::

        from prometheus_client import REGISTRY

        REGISTRY.register(AgentServiceCollector())
    """

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its present values."""
        yield _build({(): VERSION}, ())
        yield from _families({(): read()}, ())

    def describe(self) -> Iterator[Metric]:
        """Yield every family without values."""
        yield _build({}, ())
        yield from _families({}, ())


class FleetCollector:
    """All metrics of the processes in some snapshots, with the label ``process``."""

    def __init__(self, snapshots: Sequence[ProcessSnapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        """Yield every family with the values of all processes."""
        yield _build({(each.process,): each.version for each in self._snapshots}, ("process",))
        yield from _families({(each.process,): each.readings for each in self._snapshots}, ("process",))


def _build(versions: Mapping[tuple[str, ...], str], more_labels: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(_BUILD, _BUILD_HELP, labels=(*more_labels, "version"))
    for labels, each in versions.items():
        family.add_metric((*labels, each), 1)
    return family


def _families(readings: Mapping[tuple[str, ...], Readings], more_labels: tuple[str, ...]) -> Iterator[Metric]:
    for family in FAMILIES.values():
        found = (
            ((*before, *labels), value)
            for before, each in readings.items()
            for labels, value in each.get(family.name, {}).items()
        )
        yield _family(family, (*more_labels, *family.labels), found)


def _family(
    family: Family, labels: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], float | Buckets]]
) -> Metric:
    name = f"{PREFIX}{family.name}"
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=labels)
        bounds = [*map(floatToGoString, family.bounds), "+Inf"]
        for values, value in found:
            if isinstance(value, Buckets):
                histogram.add_metric(values, list(zip(bounds, value.counts, strict=True)), value.total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    simple = make(name, family.help, labels=labels)
    for values, value in found:
        if not isinstance(value, Buckets):
            simple.add_metric(values, value)
    return simple
