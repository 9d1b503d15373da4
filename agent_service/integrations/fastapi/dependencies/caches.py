"""The caches of a service."""

from dataclasses import dataclass
from typing import Any

from fastapi import Depends

from agent_service.infrastructure.cache.interface import ICache
from agent_service.integrations.fastapi.dependencies.tenancy import Service

__all__ = ["CacheNamed", "cache"]


@dataclass(frozen=True, slots=True)
class CacheNamed:
    """Gives the cache of a namespace; the same for equal namespaces, so that it can be overridden by name."""

    namespace: str = ""

    async def __call__(self, service: Service) -> ICache[Any]:
        """Return the cache."""
        return await service.cache(self.namespace)


def cache(namespace: str = "") -> Any:
    """Return the dependency on the cache of a namespace.

    ::

        Profiles = Annotated[ICache[Profile], cache("profiles")]

        @app.get("/profiles/{name}")
        async def read(name: str, profiles: Profiles) -> Profile: ...

    ``app.dependency_overrides[CacheNamed("profiles")]`` replaces it.
    """
    return Depends(CacheNamed(namespace))
