"""Routes of a session's two documents: its context and its metadata."""

from typing import Annotated

from fastapi import APIRouter, Response

from agent_service.infrastructure.database.models.session import Session
from agent_service.integrations.fastapi.conditions import IfNoneMatch, tagged, unless_known
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.models import ContextOut, MetadataOut
from agent_service.integrations.fastapi.sessions.access import Access, Operation
from agent_service.integrations.fastapi.sessions.bodies import ContextIn, Patch
from agent_service.integrations.fastapi.sessions.documented import errors, tagged_response

__all__ = ["add_documents"]


def add_documents(router: APIRouter, access: Access) -> None:
    """Add the routes of contexts and metadata."""
    read, changed = errors(404) | tagged_response(200, 304), errors(404, 412) | tagged_response(200)

    @router.get("/{session_id}/context", response_model=ContextOut, responses=read)
    async def get_context(
        *, session: Annotated[Session, access.session(Operation.READ)], condition: IfNoneMatch, response: Response
    ) -> ContextOut | Response:
        """Return a session's context."""
        return unless_known(ContextOut.of(session), session.version, response, condition)

    @router.put("/{session_id}/context", responses=changed)
    async def set_context(
        *,
        context: ContextIn,
        session: Annotated[Session, access.changing(Operation.UPDATE)],
        sessions: Sessions,
        response: Response,
    ) -> ContextOut:
        """Replace a session's whole context."""
        await sessions.set_session_context(session.id, context)
        return tagged(ContextOut.of(session), session.version, response)

    @router.patch("/{session_id}/context", responses=changed)
    async def update_context(
        *,
        patch: Patch,
        session: Annotated[Session, access.changing(Operation.UPDATE)],
        sessions: Sessions,
        response: Response,
    ) -> ContextOut:
        """Set and remove keys of a session's context; the other keys stay. Concurrent changes are all kept."""
        await sessions.update_session_context(session.id, patch.values, delete_keys=patch.delete_keys, deep=patch.deep)
        return tagged(ContextOut.of(session), session.version, response)

    @router.get("/{session_id}/metadata", response_model=MetadataOut, responses=read)
    async def get_metadata(
        *, session: Annotated[Session, access.session(Operation.READ)], condition: IfNoneMatch, response: Response
    ) -> MetadataOut | Response:
        """Return a session's metadata."""
        return unless_known(MetadataOut.of(session), session.version, response, condition)

    @router.put("/{session_id}/metadata", responses=changed)
    async def set_metadata(
        *,
        metadata: ContextIn,
        session: Annotated[Session, access.changing(Operation.UPDATE)],
        sessions: Sessions,
        response: Response,
    ) -> MetadataOut:
        """Replace a session's whole metadata."""
        await sessions.set_session_metadata(session.id, metadata)
        return tagged(MetadataOut.of(session), session.version, response)

    @router.patch("/{session_id}/metadata", responses=changed)
    async def update_metadata(
        *,
        patch: Patch,
        session: Annotated[Session, access.changing(Operation.UPDATE)],
        sessions: Sessions,
        response: Response,
    ) -> MetadataOut:
        """Set and remove keys of a session's metadata; the other keys stay. Concurrent changes are all kept."""
        await sessions.update_session_metadata(session.id, patch.values, delete_keys=patch.delete_keys, deep=patch.deep)
        return tagged(MetadataOut.of(session), session.version, response)
