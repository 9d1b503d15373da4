"""Rate limits of requests, by the shared limiters of :mod:`agent_service.infrastructure.limits`."""

from agent_service.integrations.fastapi.limits.dependency import client_ip, rate_limit
from agent_service.integrations.fastapi.limits.headers import RateLimitHeaders

__all__ = ["RateLimitHeaders", "client_ip", "rate_limit"]
