"""Copying messages to forks when their parent loses them; until then forks share the parent's rows.

The caller has locked the parent's row. Forks are locked after it, from ancestors to descendants, all of one tenant.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Insert, Update, and_, case, exists, insert, null, select, update
from sqlalchemy.orm import aliased

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.session_keys import SessionKey, in_keys

__all__ = ["adopt", "copy_messages", "copy_to_showing", "orphans", "shorten_forks", "showing"]

_COLUMNS = ("tenant_id", "session_id", "seq", "client_id", "role", "content", "data", "token_count", "created_at")
_UNCHANGED = _COLUMNS[4:]


def showing(tenant_id: str, parent_id: UUID, seq: int) -> tuple[ColumnElement[bool], ...]:
    """Forks that show message ``seq``, or later ones, through this parent."""
    return Session.tenant_id == tenant_id, Session.parent_session_id == parent_id, Session.fork_seq >= seq


def copy_to_showing(tenant_id: str, parent_id: UUID, owner: UUID, first: int, last: int) -> Insert:
    """Copy the messages from ``first`` to ``last`` to those forks of a session that show them through it.

    :param owner: whose rows they are: the session's own, or an ancestor's.
    """
    message: Any = SessionMessage.__table__.c
    shown = and_(message.tenant_id == Session.tenant_id, message.session_id == owner, message.seq <= Session.fork_seq)
    kept = (Session.tenant_id, Session.id, message.seq, _client_id(Session.tenant_id, Session.id))
    source = select(*kept, *_unchanged(message)).join(Session, shown)
    return _insert(source.where(*showing(tenant_id, parent_id, first), message.seq.between(first, last)))


def shorten_forks(tenant_id: str, parent_id: UUID, seq: int) -> Update:
    """Let the forks that show message ``seq`` through this parent, all locked, end before it; return their ids."""
    back = update(Session).where(*showing(tenant_id, parent_id, seq)).values(fork_seq=seq - 1)
    return back.returning(Session.id).execution_options(synchronize_session=False)


def orphans(dialect: str, dying: Sequence[SessionKey]) -> ColumnElement[bool]:
    """Select forks that stay while their parent is removed."""
    return and_(
        Session.parent_session_id.is_not(None),
        in_keys(dialect, Session.tenant_id, Session.parent_session_id, dying),
        ~in_keys(dialect, Session.tenant_id, Session.id, dying),
    )


def copy_messages(dialect: str, dying: Sequence[SessionKey], after: int, until: int) -> Insert:
    """Copy to every fork that stays the messages it shows through these sessions.

    :param after: of the messages whose numbers are above this one,
    :param until: and at most this one.
    """
    message: Any = SessionMessage.__table__.c
    shown = and_(
        message.tenant_id == Session.tenant_id,
        message.session_id == Session.parent_session_id,
        message.seq <= Session.fork_seq,
    )
    kept = (Session.tenant_id, Session.id, message.seq, _client_id(Session.tenant_id, Session.id))
    some = (message.seq > after, message.seq <= until)
    return _insert(select(*kept, *_unchanged(message)).join(Session, shown).where(orphans(dialect, dying), *some))


def adopt(dialect: str, dying: Sequence[SessionKey]) -> Update:
    """Make those forks children of their parent's own parent, if it has one."""
    parent = aliased(Session)
    is_parent = and_(parent.tenant_id == Session.tenant_id, parent.id == Session.parent_session_id)
    of_parent = select(parent.parent_session_id).where(is_parent)
    left = select(
        case(
            (parent.parent_session_id.is_(None), null()),
            (parent.fork_seq < Session.fork_seq, parent.fork_seq),
            else_=Session.fork_seq,
        )
    ).where(is_parent)
    return (
        update(Session)
        .where(orphans(dialect, dying))
        .values(parent_session_id=of_parent.scalar_subquery(), fork_seq=left.scalar_subquery())
        .execution_options(synchronize_session=False)
    )


def _insert(source: Any) -> Insert:
    table: Any = SessionMessage.__table__
    return insert(table).from_select(_COLUMNS, source)


def _unchanged(message: Any) -> list[Any]:
    return [message[name] for name in _UNCHANGED]


def _client_id(tenant_id: Any, fork_id: Any) -> Any:
    """Return the client id, unless the fork used it again for a message of its own."""
    message: Any = SessionMessage.__table__.c
    used = aliased(SessionMessage)
    taken = exists().where(used.tenant_id == tenant_id, used.session_id == fork_id, used.client_id == message.client_id)
    return case((taken, null()), else_=message.client_id)
