"""A service on FastAPI: its life, dependencies, errors and health. Needs the extra ``fastapi``.

Each name is imported when it is first used, so that a service that only caches does not pay for the database.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from agent_service.integrations.fastapi.dependencies.caches import CacheNamed, cache
    from agent_service.integrations.fastapi.dependencies.database import DbSession, Sessions, Writer
    from agent_service.integrations.fastapi.dependencies.state import Runtime, Shared
    from agent_service.integrations.fastapi.dependencies.tenancy import Service, Tenant, User
    from agent_service.integrations.fastapi.health import health_router
    from agent_service.integrations.fastapi.limits.dependency import client_ip, rate_limit
    from agent_service.integrations.fastapi.limits.headers import RateLimitHeaders
    from agent_service.integrations.fastapi.openapi import Problem, problem_responses
    from agent_service.integrations.fastapi.problems import add_problem_handlers
    from agent_service.integrations.fastapi.responses.dependency import cache_response
    from agent_service.integrations.fastapi.responses.route import CachedRoute
    from agent_service.integrations.fastapi.service import AgentService

__all__ = [
    "AgentService",
    "CacheNamed",
    "CachedRoute",
    "DbSession",
    "Problem",
    "RateLimitHeaders",
    "Runtime",
    "Service",
    "Sessions",
    "Shared",
    "Tenant",
    "User",
    "Writer",
    "add_problem_handlers",
    "cache",
    "cache_response",
    "client_ip",
    "health_router",
    "problem_responses",
    "rate_limit",
]

_FILES = {
    "AgentService": "service",
    "CacheNamed": "dependencies.caches",
    "cache": "dependencies.caches",
    "DbSession": "dependencies.database",
    "Sessions": "dependencies.database",
    "Writer": "dependencies.database",
    "health_router": "health",
    "RateLimitHeaders": "limits.headers",
    "client_ip": "limits.dependency",
    "rate_limit": "limits.dependency",
    "Problem": "openapi",
    "problem_responses": "openapi",
    "add_problem_handlers": "problems",
    "CachedRoute": "responses.route",
    "cache_response": "responses.dependency",
    "Runtime": "dependencies.state",
    "Shared": "dependencies.state",
    "Service": "dependencies.tenancy",
    "Tenant": "dependencies.tenancy",
    "User": "dependencies.tenancy",
}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    return value
