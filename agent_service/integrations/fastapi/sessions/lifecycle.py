"""Routes of single sessions: create, read, change, fork, delete, restore."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from agent_service.infrastructure.database.models.session import Session
from agent_service.integrations.fastapi.conditions import IfMatch, IfNoneMatch, require_version, tagged, unless_known
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.models import SessionOut
from agent_service.integrations.fastapi.sessions.access import (
    Access,
    Caller,
    Operation,
    SessionId,
    named,
    permitted,
)
from agent_service.integrations.fastapi.sessions.bodies import ForkIn, SessionIn, SessionPatch
from agent_service.integrations.fastapi.sessions.documented import errors, tagged_response

__all__ = ["add_lifecycle"]


def add_lifecycle(router: APIRouter, access: Access) -> None:
    """Add the routes of single sessions."""

    @router.post("", status_code=status.HTTP_201_CREATED, responses=errors(409) | tagged_response(201))
    async def create_session(
        *,
        body: SessionIn,
        caller: Annotated[Caller, access.caller(Operation.CREATE)],
        sessions: Sessions,
        request: Request,
        response: Response,
    ) -> SessionOut:
        """Create a session."""
        values = {name: value for name, value in body if value is not None}
        session = await sessions.create(Session(**values | {"user_id": named(caller, body.user_id)}))
        response.headers["Location"] = f"{request.url.path.rstrip('/')}/{session.id}"
        return _shown(response, session)

    @router.get("/by-external-id", responses=errors(404) | tagged_response(200))
    async def get_session_by_external_id(
        *,
        external_id: Annotated[str, Query(description="The id that another system gave the conversation.")],
        caller: Annotated[Caller, access.caller(Operation.READ)],
        sessions: Sessions,
        response: Response,
    ) -> SessionOut:
        """Return the session that carries an id of another system."""
        found = await sessions.get_by_external_id(external_id)
        return _shown(response, permitted(caller, Operation.READ, found, f"of the external_id {external_id!a:.80}"))

    @router.get("/{session_id}", response_model=SessionOut, responses=errors(404) | tagged_response(200, 304))
    async def get_session(
        *, session: Annotated[Session, access.session(Operation.READ)], condition: IfNoneMatch, response: Response
    ) -> SessionOut | Response:
        """Return a session."""
        return unless_known(SessionOut.of(session), session.version, response, condition)

    @router.patch("/{session_id}", responses=errors(404, 409, 412) | tagged_response(200))
    async def update_session(
        *,
        body: SessionPatch,
        session: Annotated[Session, access.changing(Operation.UPDATE)],
        sessions: Sessions,
        response: Response,
    ) -> SessionOut:
        """Change fields of a session, its status among them: active, completed, failed or cancelled."""
        for name in body.model_fields_set:
            setattr(session, name, getattr(body, name))
        return _shown(response, await sessions.update(session) if body.model_fields_set else session)

    @router.delete("/{session_id}", status_code=status.HTTP_204_NO_CONTENT, responses=errors(404, 412))
    async def delete_session(
        *,
        session_id: SessionId,
        caller: Annotated[Caller, access.caller(Operation.DELETE)],
        sessions: Sessions,
        condition: IfMatch,
        hard: Annotated[bool, Query(description="Remove it and its messages for good, also if it is hidden.")] = False,
    ) -> None:
        """Hide a session, so that it can be restored; or remove it for good."""
        if hard:
            # Within this transaction only: a session that is hidden cannot be read, and may be removed all the same.
            await sessions.restore(session_id)
        found = await sessions.get(session_id, lock=condition is not None)
        session = permitted(caller, Operation.DELETE, found, session_id)
        require_version(session, condition)
        await sessions.delete(session.id, hard=hard)

    @router.post("/{session_id}/restore", responses=errors(404) | tagged_response(200))
    async def restore_session(
        *,
        session_id: SessionId,
        caller: Annotated[Caller, access.caller(Operation.DELETE)],
        sessions: Sessions,
        response: Response,
    ) -> SessionOut:
        """Restore a hidden session; one that is not hidden stays as it is."""
        await sessions.restore(session_id)
        # Whose session it is can be read only now. An error rolls the restoration back.
        return _shown(response, permitted(caller, Operation.DELETE, await sessions.get(session_id), session_id))

    @router.post(
        "/{session_id}/fork", status_code=status.HTTP_201_CREATED, responses=errors(404) | tagged_response(201)
    )
    async def fork_session(
        *,
        body: ForkIn,
        session: Annotated[Session, access.session(Operation.FORK)],
        sessions: Sessions,
        request: Request,
        response: Response,
    ) -> SessionOut:
        """Create a session that shows this one's messages up to a number and continues after it."""
        fork = await sessions.fork(session.id, body.seq)
        response.headers["Location"] = f"{request.url.path.rsplit('/', 2)[0]}/{fork.id}"
        return _shown(response, fork)


def _shown(response: Response, session: Session) -> SessionOut:
    return tagged(SessionOut.of(session), session.version, response)
