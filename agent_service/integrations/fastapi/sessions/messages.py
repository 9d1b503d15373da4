"""Routes of a session's messages: append, read, remove the last."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Body, Query, Response, status

from agent_service.core.errors import SessionConflictError, TransactionConflictError
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.history import DEFAULT_LIMIT, MAX_MESSAGES
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.values.validation import MAX_SEQ
from agent_service.integrations.fastapi.conditions import (
    REPLAYED,
    IdempotencyKey,
    IfMatch,
    expected_version,
    require_same,
    require_version,
)
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.models import MessageOut
from agent_service.integrations.fastapi.sessions.access import Access, Operation, not_found
from agent_service.integrations.fastapi.sessions.bodies import MAX_BATCH, BatchItem, MessageIn
from agent_service.integrations.fastapi.sessions.documented import errors, replayed_response

__all__ = ["add_messages"]

_ExpectedSeq: TypeAlias = Annotated[
    int | None, Query(ge=0, le=MAX_SEQ, description="Append only if this is the number of the session's last message.")
]

_Role: TypeAlias = Annotated[str | None, Query(min_length=1, description="The role of a message that has none.")]


def add_messages(router: APIRouter, access: Access) -> None:
    """Add the routes of a session's messages."""

    @router.post(
        "/{session_id}/messages",
        status_code=status.HTTP_201_CREATED,
        responses=errors(404, 409, 412) | replayed_response(MessageOut),
    )
    async def append_message(
        *,
        message: MessageIn,
        session: Annotated[Session, access.session(Operation.APPEND)],
        sessions: Sessions,
        response: Response,
        key: IdempotencyKey,
        condition: IfMatch,
        expected_seq: _ExpectedSeq = None,
        role: _Role = None,
    ) -> MessageOut:
        """Append a message; with an Idempotency-Key, however often it is sent."""
        last_seq = await _hold(sessions, session) if key is not None else session.last_seq
        try:
            stored = await sessions.add_message_to_session(
                session.id,
                message,
                role=role,
                client_id=key,
                expected_seq=expected_seq,
                expected_version=expected_version(session, condition),
            )
        except TransactionConflictError:
            raise
        except SessionConflictError:
            require_version(session, condition)
            raise
        if key is not None and stored.seq <= last_seq:
            require_same(stored, message, role, place="header", name="Idempotency-Key", client_id=key)
            _replayed(response)
        return MessageOut.of(stored)

    @router.post(
        "/{session_id}/messages/batch",
        status_code=status.HTTP_201_CREATED,
        responses=errors(404, 409, 412) | replayed_response(list[MessageOut]),
    )
    async def append_messages(
        *,
        messages: Annotated[list[BatchItem], Body(embed=True, min_length=1, max_length=MAX_BATCH)],
        session: Annotated[Session, access.changing(Operation.APPEND)],
        sessions: Sessions,
        response: Response,
    ) -> list[MessageOut]:
        """Append messages in their order, all or none. A client_id that was appended before adds nothing."""
        keys = [each.client_id for each in messages]
        last_seq = await _hold(sessions, session) if any(keys) else session.last_seq
        given, roles = [each.message for each in messages], [each.role for each in messages]
        stored = await sessions.add_messages_to_session(session.id, given, role=roles, client_ids=keys)
        for index, (each, item) in enumerate(zip(stored, messages, strict=True)):
            if item.client_id is not None:
                name = f"messages[{index}].client_id"
                require_same(each, item.message, item.role, place="body", name=name, client_id=item.client_id)
        if all(each.seq <= last_seq for each in stored):
            _replayed(response)
        return [MessageOut.of(each) for each in stored]

    @router.get("/{session_id}/messages", responses=errors(404))
    async def get_messages(
        *,
        session: Annotated[Session, access.session(Operation.READ)],
        sessions: Sessions,
        limit: Annotated[
            int | None,
            Query(
                ge=1,
                le=MAX_MESSAGES,
                description=f"Most messages to return; {DEFAULT_LIMIT}, or with max_tokens as many as fit.",
            ),
        ] = None,
        before_seq: Annotated[int | None, Query(ge=0, le=MAX_SEQ, description="Only messages before this.")] = None,
        after_seq: Annotated[
            int | None, Query(ge=0, le=MAX_SEQ, description="Only messages after this: the first ones, not the last.")
        ] = None,
        roles: Annotated[list[str] | None, Query(description="Only messages of these roles.")] = None,
        max_tokens: Annotated[int | None, Query(ge=0, le=MAX_SEQ, description="Tokens they may cost together.")] = None,
    ) -> list[MessageOut]:
        """Return messages in their order: the last ones, or the first ones after a number."""
        found = await sessions.get_messages(
            session.id, limit=limit, before_seq=before_seq, after_seq=after_seq, roles=roles, max_tokens=max_tokens
        )
        return [MessageOut.of(each) for each in found]

    @router.delete("/{session_id}/messages/last", responses=errors(404, 412))
    async def pop_message(
        *, session: Annotated[Session, access.changing(Operation.DELETE)], sessions: Sessions
    ) -> MessageOut | None:
        """Remove the last message and return it; null when there was none. Its number is not given out again."""
        popped = await sessions.pop_message(session.id)
        return None if popped is None else MessageOut.of(popped)


async def _hold(sessions: SessionRepository, session: Session) -> int:
    """Lock a session, and return its last number: what is appended under the lock has a greater one."""
    locked = await sessions.get(session.id, lock=True)
    if locked is None:
        raise not_found(session.id)
    return locked.last_seq


def _replayed(response: Response) -> None:
    response.status_code = status.HTTP_200_OK
    response.headers[REPLAYED] = "true"
