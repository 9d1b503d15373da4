"""The route that follows a session, and the one that exports a user."""

from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query
from starlette.responses import StreamingResponse

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.values.validation import MAX_SEQ
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.dependencies.tenancy import Service, Tenant
from agent_service.integrations.fastapi.events import MessageEvents
from agent_service.integrations.fastapi.owned_stream import OwnedStream
from agent_service.integrations.fastapi.service import AgentService
from agent_service.integrations.fastapi.sessions.access import Access, Operation
from agent_service.integrations.fastapi.sessions.documented import errors, stream_response

__all__ = ["add_streams"]


def add_streams(router: APIRouter, access: Access, *, heartbeat: float) -> None:
    """Add the routes whose answers are streams."""

    @router.get(
        "/export",
        response_class=StreamingResponse,
        responses=stream_response("application/x-ndjson", "One JSON document a line, sessions and their messages."),
    )
    async def export_user(
        *,
        user_id: Annotated[UUID | str, access.user(Operation.EXPORT)],
        sessions: Sessions,
        service: Service,
        tenant: Tenant,
    ) -> OwnedStream:
        """Return everything that is stored of a user as JSON lines: sessions, hidden ones too, and messages."""
        # A database that cannot be read is an error as long as the response has not begun.
        await sessions.count_active_sessions(user_id)
        headers = {"Cache-Control": "private, no-store", "Content-Disposition": 'attachment; filename="sessions.jsonl"'}
        return OwnedStream(_lines(service, tenant, user_id), media_type="application/x-ndjson", headers=headers)

    @router.get(
        "/{session_id}/events",
        response_class=StreamingResponse,
        responses=errors(404) | stream_response("text/event-stream", "An event for each message; its id is the seq."),
    )
    async def stream_session(
        *,
        session: Annotated[Session, access.session(Operation.STREAM)],
        sessions: Sessions,
        service: Service,
        after_seq: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only messages after this number.")] = 0,
        last_event_id: Annotated[
            int | None,
            Header(
                alias="Last-Event-ID",
                ge=0,
                le=MAX_SEQ,
                description="The id of the latest event that arrived, as browsers send it; counts before after_seq.",
            ),
        ] = None,
    ) -> MessageEvents:
        """Return every message of a session as a server-sent event, as soon as it is committed, without end."""
        after = after_seq if last_event_id is None else last_event_id
        messages = sessions.subscribe(session.id, after_seq=after, until=service.stopping)
        return MessageEvents(messages, heartbeat=heartbeat)


async def _lines(service: AgentService, tenant: str, user_id: UUID | str) -> AsyncGenerator[bytes, None]:
    async with service.parts.exporting, service.database.session() as db:
        async for line in SessionRepository(db, tenant).export_user(user_id):
            yield f"{line}\n".encode()
