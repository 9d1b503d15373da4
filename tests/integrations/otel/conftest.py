"""The SDK, with exporters in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.otel import instrument, uninstrument
from tests.integrations.otel.seen import Seen


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What the SDK was told since the test began."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    traces, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(traces, meters)
    yield Seen(traces.get_tracer("test"), exporter, reader)
    uninstrument()
    traces.shutdown()
    meters.shutdown()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseManager]:
    """A migrated, empty database of each engine in turn, made before anything is watched."""
    manager = DatabaseManager(database_url)
    await manager.prepare()
    yield manager
    await manager.close()
