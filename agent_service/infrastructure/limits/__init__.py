"""Rate limits that all processes share: exact on Redis, and for each process by itself while Redis is down."""

from agent_service.infrastructure.limits.limiter import Decision, RateLimiter, Remaining
from agent_service.infrastructure.limits.rates import Rate

__all__ = ["Decision", "Rate", "RateLimiter", "Remaining"]
