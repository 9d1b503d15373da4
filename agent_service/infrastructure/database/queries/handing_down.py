"""Keeping what forks show when their parent loses it: only then are rows copied, and only those.

The parent's row is locked by the caller; forks are locked after it, from the top of a family downwards.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Insert, Update, and_, case, exists, insert, literal, null, select, update
from sqlalchemy import Uuid as UuidType
from sqlalchemy.orm import aliased

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session

__all__ = ["adopt", "copy_message", "copy_messages", "orphans", "step_back"]

_COLUMNS = ("session_id", "seq", "client_id", "role", "content", "data", "token_count", "created_at")


def step_back(parent_id: UUID, seq: int) -> Update:
    """Let the forks that show message ``seq`` through this parent end just before it; gives their ids."""
    return (
        update(Session)
        .where(Session.parent_session_id == parent_id, Session.fork_seq >= seq)
        .values(fork_seq=seq - 1)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )


def copy_message(owner: UUID, seq: int, fork_id: UUID) -> Insert:
    """Give a fork a row of its own of one message."""
    message: Any = SessionMessage.__table__.c
    source = select(
        literal(fork_id, UuidType), message.seq, _client_id(literal(fork_id, UuidType)), *_unchanged(message)
    ).where(message.session_id == owner, message.seq == seq)
    return _insert(source)


def orphans(dying: list[UUID]) -> ColumnElement[bool]:
    """Sessions that stay while their parent goes."""
    return and_(Session.parent_session_id.in_(dying), Session.id.not_in(dying))


def copy_messages(dying: list[UUID], after: int, until: int) -> Insert:
    """Give every fork of these sessions, that is not one of them, rows of its own of what it shows through them.

    :param after: of the messages whose numbers are above this one,
    :param until: and at most this one.
    """
    message: Any = SessionMessage.__table__.c
    source = (
        select(Session.id, message.seq, _client_id(Session.id), *_unchanged(message))
        .join(Session, and_(message.session_id == Session.parent_session_id, message.seq <= Session.fork_seq))
        .where(orphans(dying), message.seq > after, message.seq <= until)
    )
    return _insert(source)


def adopt(dying: list[UUID]) -> Update:
    """Let those forks continue from their parent's own parent, if it has one."""
    parent = aliased(Session)
    of_parent = select(parent.parent_session_id).where(parent.id == Session.parent_session_id)
    left = select(
        case(
            (parent.parent_session_id.is_(None), null()),
            (parent.fork_seq < Session.fork_seq, parent.fork_seq),
            else_=Session.fork_seq,
        )
    ).where(parent.id == Session.parent_session_id)
    return (
        update(Session)
        .where(orphans(dying))
        .values(parent_session_id=of_parent.scalar_subquery(), fork_seq=left.scalar_subquery())
        .execution_options(synchronize_session=False)
    )


def _insert(source: Any) -> Insert:
    table: Any = SessionMessage.__table__
    return insert(table).from_select(_COLUMNS, source)


def _unchanged(message: Any) -> list[Any]:
    return [message[name] for name in _COLUMNS[3:]]


def _client_id(fork_id: Any) -> Any:
    """Give the client id, unless the fork used it again for a message of its own."""
    message: Any = SessionMessage.__table__.c
    used = aliased(SessionMessage)
    taken = exists().where(used.session_id == fork_id, used.client_id == message.client_id)
    return case((taken, null()), else_=message.client_id)
