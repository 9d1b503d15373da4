"""The service of a request, and for whom the request is served."""

import inspect
from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import HTTPConnection

from agent_service.core.errors import ConfigurationError, RuntimeStateError
from agent_service.integrations.fastapi.service import AgentService, Resolver

__all__ = ["Service", "Tenant", "User", "service_of", "tenant_of", "user_of"]


async def service_of(connection: HTTPConnection) -> AgentService:
    """Return the service of the application that serves a request.

    A coroutine function only because FastAPI runs others in a thread.

    :raises RuntimeStateError: it has none.
    """
    service = getattr(connection.app.state, "agent_service", None)
    if not isinstance(service, AgentService):
        raise RuntimeStateError("this application has no AgentService; call service.install(app)")
    return service


Service: TypeAlias = Annotated[AgentService, Depends(service_of)]
"""The service itself: ``service.stopping``, ``service.database``."""


async def tenant_of(connection: HTTPConnection, service: Service) -> str:
    """Return the tenant of a request, as ``AgentService(tenant=...)`` says."""
    return await _resolve(service.tenant, connection, "tenant")


async def user_of(connection: HTTPConnection, service: Service) -> str:
    """Return the user of a request, as ``AgentService(user=...)`` says.

    :raises ConfigurationError: it says nothing.
    """
    if service.user is None:
        raise ConfigurationError("nothing says who the user of a request is; make the service with AgentService(user=)")
    return await _resolve(service.user, connection, "user")


async def _resolve(resolver: Resolver, connection: HTTPConnection, name: str) -> str:
    found = resolver(connection)
    value = await found if inspect.isawaitable(found) else found
    if not isinstance(value, str):
        raise ConfigurationError(f"AgentService({name}=...) must return a str, not {type(value).__name__}")
    return value


Tenant: TypeAlias = Annotated[str, Depends(tenant_of)]
"""The tenant of the request."""
User: TypeAlias = Annotated[str, Depends(user_of)]
"""The user of the request."""
