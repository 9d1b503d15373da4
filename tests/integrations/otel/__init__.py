"""Traces and metrics, seen by the real SDK of OpenTelemetry."""
