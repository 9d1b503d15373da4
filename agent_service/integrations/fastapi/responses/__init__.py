"""A cache of HTTP responses by RFC 9110 and 9111, on the cache of the settings and its loads."""

from agent_service.integrations.fastapi.responses.dependency import NAMESPACE, cache_response
from agent_service.integrations.fastapi.responses.route import CachedRoute

__all__ = ["NAMESPACE", "CachedRoute", "cache_response"]
