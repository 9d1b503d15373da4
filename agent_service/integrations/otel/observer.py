"""Spans, and the durations of database operations, as OpenTelemetry wants them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from agent_service.core import tracing
from agent_service.core.tracing import Server
from agent_service.integrations.otel.names import (
    BOUNDS,
    COLLECTION,
    CONVERSATION,
    ERROR_TYPE,
    OPERATION,
    Attributes,
    error_type,
    server_attributes,
)

__all__ = ["OtelObserver"]

_KINDS: Final[Mapping[tracing.SpanKind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
_MOST_REMEMBERED: Final = 1000


class OtelObserver:
    """An :class:`~agent_service.core.tracing.Observer` over a tracer and a meter."""

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._durations = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        self._remembered: dict[tuple[Server, str, str], Attributes] = {}

    def span(
        self, name: str, attributes: Mapping[str, str | int], *, kind: tracing.SpanKind, root: bool
    ) -> "_OpenSpan":
        """Open a span for a block."""
        return _OpenSpan(self._tracer, name, attributes, _KINDS[kind], root=root)

    def trace(self, server: Server, operation: str, collection: str, *, session_id: str | None) -> "_OpenSpan":
        """Open a span for a block that works with a database."""
        attributes = self._attributes(server, operation, collection)
        if session_id is not None:
            attributes = {**attributes, CONVERSATION: session_id}
        return _OpenSpan(self._tracer, f"{operation} {collection}", attributes, SpanKind.CLIENT)

    @contextmanager
    def measure(self, server: Server, operation: str, collection: str) -> Iterator[None]:
        """Measure how long a block works with a database."""
        attributes = self._attributes(server, operation, collection)
        started = time.perf_counter()
        try:
            yield
        except BaseException as exc:
            attributes = {**attributes, ERROR_TYPE: error_type(exc)}
            raise
        finally:
            self._durations.record(time.perf_counter() - started, attributes)

    def operated(self, server: Server, operation: str, seconds: float, error: BaseException | None) -> None:
        """Record an operation that has ended."""
        attributes = self._attributes(server, operation)
        if error is not None:
            attributes = {**attributes, ERROR_TYPE: error_type(error)}
        self._durations.record(seconds, attributes)

    def _attributes(self, server: Server, operation: str, collection: str = "") -> Attributes:
        """Return the attributes of an operation, which are not to be changed; "" is left out."""
        known = (server, operation, collection)
        found = self._remembered.get(known)
        if found is None:
            more = {OPERATION: operation, COLLECTION: collection}
            found = server_attributes(server) | {name: value for name, value in more.items() if value}
            if len(self._remembered) < _MOST_REMEMBERED:
                self._remembered[known] = found
        return found

    def carry(self, into: Context) -> None:
        """Make the current span the parent of what happens in another context; baggage stays behind.

        A load is shared by callers, so it must not see what only the first of them brought.
        """
        span = trace.get_current_span()
        if span.get_span_context().is_valid:
            into.run(otel_context.attach, trace.set_span_in_context(span, otel_context.Context()))


class _OpenSpan:
    """A span around a block: the current one meanwhile, and ended with the class of what the block raised."""

    __slots__ = ("_attributes", "_kind", "_name", "_parent", "_span", "_token", "_tracer")

    def __init__(
        self, tracer: Tracer, name: str, attributes: Mapping[str, str | int], kind: SpanKind, *, root: bool = False
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._parent = otel_context.Context() if root else None

    def __enter__(self) -> Span:
        self._span = self._tracer.start_span(self._name, self._parent, self._kind, self._attributes)
        self._token = otel_context.attach(trace.set_span_in_context(self._span, self._parent))
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        otel_context.detach(self._token)
        if error is not None:
            self._span.set_attribute(ERROR_TYPE, error_type(error))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
