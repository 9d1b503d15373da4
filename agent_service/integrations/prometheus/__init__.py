"""Metrics for Prometheus: a collector, and an ASGI application that serves them."""

from agent_service.integrations.prometheus.app import MetricsApp, metrics_app
from agent_service.integrations.prometheus.collector import AgentServiceCollector

__all__ = ["AgentServiceCollector", "MetricsApp", "metrics_app"]
