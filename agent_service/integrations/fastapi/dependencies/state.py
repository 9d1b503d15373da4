"""The shared state of a request's user, and the runtime of its tools."""

from collections.abc import AsyncIterator
from typing import Annotated, TypeAlias

from fastapi import Depends

from agent_service.core.errors import ConfigurationError
from agent_service.integrations.fastapi.dependencies.tenancy import Service, Tenant, User
from agent_service.runtime.runtime import AgentRuntime
from agent_service.tenants.current import shared_state_scope
from agent_service.tenants.shared_state import RedisSharedState

__all__ = ["Runtime", "Shared", "agent_runtime", "shared_state"]


async def shared_state(tenant: Tenant, user: User) -> AsyncIterator[RedisSharedState]:
    """Bind the shared state of a request's tenant and user while the handler runs.

    :raises ConfigurationError: the service does not say whose requests it serves.
    """
    if not tenant or not user:
        raise ConfigurationError("shared state needs a tenant and a user that are not empty; see AgentService(tenant=)")
    with shared_state_scope(tenant, user) as shared:
        yield shared


Shared: TypeAlias = Annotated[RedisSharedState, Depends(shared_state, scope="function")]
"""The shared state of the request's user. Tools find it as ``current_shared_state`` while the handler runs."""


async def agent_runtime(service: Service) -> AgentRuntime:
    """Return the runtime of the service."""
    return service.runtime


Runtime: TypeAlias = Annotated[AgentRuntime, Depends(agent_runtime)]
"""The runtime: pools for tools, the limiter, the bridge."""
