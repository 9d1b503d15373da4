"""Traces and metrics of this package for OpenTelemetry: extra ``otel``. Nothing is taken before :func:`instrument`."""

from agent_service.integrations.otel.instrumentation import instrument, uninstrument

__all__ = ["instrument", "uninstrument"]
