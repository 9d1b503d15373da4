"""Reading a session's messages by number, at a cost that does not depend on the session's length."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import holds, one

__all__ = ["by_client_id", "everything", "own", "window"]


def window(
    tenant_id: str,
    session_id: UUID,
    *,
    limit: int,
    before_seq: int | None,
    after_seq: int | None,
    roles: Sequence[str] | None,
) -> Select[Any]:
    """A visible session's own messages between two numbers, both excluded, each with the session's parent.

    The first ones after ``after_seq`` when given, else the last ones; in the order they are counted from: ascending
    after ``after_seq``, else descending.
    """
    statement = _messages(tenant_id, session_id).add_columns(Session.parent_session_id)
    return _bounded(statement, limit, before_seq, after_seq, roles)


def own(
    tenant_id: str,
    session_id: UUID,
    *,
    limit: int,
    before_seq: int | None,
    after_seq: int | None,
    roles: Sequence[str] | None,
) -> Select[Any]:
    """The same of any session of the tenant, visible or not: an ancestor's part of a fork's history."""
    statement = select(SessionMessage).where(*_of(tenant_id, session_id))
    return _bounded(statement, limit, before_seq, after_seq, roles)


def everything(tenant_id: str, session_id: UUID) -> Select[Any]:
    """Every own message of a session, in order."""
    return select(SessionMessage).where(*_of(tenant_id, session_id)).order_by(SessionMessage.seq)


def by_client_id(tenant_id: str, session_id: UUID, client_id: str) -> Select[Any]:
    """The message that was appended under a client id."""
    return _messages(tenant_id, session_id).where(SessionMessage.client_id == client_id)


def _messages(tenant_id: str, session_id: UUID) -> Select[Any]:
    return (
        select(SessionMessage)
        .join(Session, holds(SessionMessage))
        .where(*_of(tenant_id, session_id), *one(tenant_id, session_id))
    )


def _of(tenant_id: str, session_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return SessionMessage.tenant_id == tenant_id, SessionMessage.session_id == session_id


def _bounded(
    statement: Select[Any], limit: int, before_seq: int | None, after_seq: int | None, roles: Sequence[str] | None
) -> Select[Any]:
    statement = statement.limit(limit)
    if roles is not None:
        statement = statement.where(SessionMessage.role.in_(roles))
    if before_seq is not None:
        statement = statement.where(SessionMessage.seq < before_seq)
    if after_seq is None:
        return statement.order_by(SessionMessage.seq.desc())
    return statement.where(SessionMessage.seq > after_seq).order_by(SessionMessage.seq)
