"""Rate limits of requests, by the limiters of :mod:`agent_service.infrastructure.limits`."""
