"""Async-first caching and durable sessions for agent services."""
