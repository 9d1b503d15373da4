"""Reading a session's messages by number, at a cost that does not depend on the session's length."""

from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, String, Uuid, bindparam, select

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.reads import Read
from agent_service.infrastructure.database.queries.scope import holds, one

__all__ = ["Bounds", "by_client_id", "everything", "own", "window"]

_KEY: Final = bindparam("tenant_id", type_=String()), bindparam("session_id", type_=Uuid())
Bounds = tuple[str, ...]
"""Which of ``before_seq`` and ``after_seq`` are given."""


@lru_cache(maxsize=64)
def window(bounds: Bounds) -> Read[SessionMessage]:
    """Read a visible session's own messages between two numbers, both excluded, each with the session's parent.

    The first ones after ``after_seq`` when given, else the last ones; in the order they are counted from: ascending
    after ``after_seq``, else descending. At most ``limit`` of the session ``session_id`` of ``tenant_id``.
    """
    statement = _messages(*_KEY).add_columns(Session.parent_session_id)
    return Read(SessionMessage, _bounded(statement, bounds))


@lru_cache(maxsize=64)
def own(bounds: Bounds) -> Read[SessionMessage]:
    """Read the same of any session of the tenant, visible or not: an ancestor's part of a fork's history."""
    return Read(SessionMessage, _bounded(select(SessionMessage).where(*_of(*_KEY)), bounds))


def everything(tenant_id: str, session_id: UUID) -> Select[Any]:
    """Every own message of a session, in order."""
    return select(SessionMessage).where(*_of(tenant_id, session_id)).order_by(SessionMessage.seq)


def by_client_id(tenant_id: str, session_id: UUID, client_id: str) -> Select[Any]:
    """The message that was appended under a client id."""
    return _messages(tenant_id, session_id).where(SessionMessage.client_id == client_id)


def _messages(tenant_id: Any, session_id: Any) -> Select[Any]:
    return (
        select(SessionMessage)
        .join(Session, holds(SessionMessage))
        .where(*_of(tenant_id, session_id), *one(tenant_id, session_id))
    )


def _of(tenant_id: Any, session_id: Any) -> tuple[ColumnElement[bool], ...]:
    return SessionMessage.tenant_id == tenant_id, SessionMessage.session_id == session_id


def _bounded(statement: Select[Any], bounds: Bounds) -> Select[Any]:
    statement = statement.limit(bindparam("limit", type_=Integer()))
    if "before_seq" in bounds:
        statement = statement.where(SessionMessage.seq < bindparam("before_seq"))
    if "after_seq" not in bounds:
        return statement.order_by(SessionMessage.seq.desc())
    return statement.where(SessionMessage.seq > bindparam("after_seq")).order_by(SessionMessage.seq)
