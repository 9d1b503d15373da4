"""The database of a service: a transaction for each request, the repository in it, and the shared writer."""

from collections.abc import AsyncIterator
from typing import Annotated, TypeAlias

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.integrations.fastapi.dependencies.tenancy import Service, Tenant

__all__ = ["DbSession", "Sessions", "Writer", "db_session", "session_writer", "sessions"]


async def db_session(service: Service) -> AsyncIterator[AsyncSession]:
    """Open a database session for a request."""
    async with service.database.session() as db:
        yield db


DbSession: TypeAlias = Annotated[AsyncSession, Depends(db_session, scope="function")]
"""One database session for the handler and all its dependencies.

It is committed when the handler has returned and its result was serialized, and rolled back if either raises. The
response is sent after that: a commit that fails is an error, not a success. So what a streaming response sends must not
need it; open ``service.database.session()`` there.
"""


async def sessions(db: DbSession, tenant: Tenant) -> SessionRepository:
    """Return the repository of a request's tenant, in the transaction of the request."""
    return SessionRepository(db, tenant)


Sessions: TypeAlias = Annotated[SessionRepository, Depends(sessions)]
"""The sessions of the request's tenant, in the transaction of :data:`DbSession`."""


async def session_writer(service: Service) -> SessionWriter:
    """Return the writer that all requests share."""
    return service.writer


Writer: TypeAlias = Annotated[SessionWriter, Depends(session_writer)]
"""The writer that all requests share; an append is committed when it returns."""
