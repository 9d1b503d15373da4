"""Spans and metrics that the SDK has collected."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

__all__ = ["Seen"]


@dataclass(frozen=True)
class Seen:
    """What was collected.

    :param tracer: opens spans of the test's own.
    """

    tracer: Tracer
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans of a name."""
        return [each for each in self.exporter.get_finished_spans() if each.name == name]

    def span(self, name: str) -> ReadableSpan:
        """Return the one span of a name."""
        (found,) = self.spans(name)
        return found

    def points(self, metric: str) -> list[Any]:
        """Return the data points of a metric."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def metric(self, name: str) -> Any:
        """Return a metric with its unit, as it was declared."""
        data = self.reader.get_metrics_data()
        assert data is not None
        (found,) = [
            each
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == name
        ]
        return found

    def durations(self, **attributes: object) -> list[Mapping[str, Any]]:
        """Return the attributes of durations of database operations, those that have the given ones."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        found = [dict(point.attributes) for point in self.points("db.client.operation.duration")]
        return [each for each in found if wanted.items() <= each.items()]
