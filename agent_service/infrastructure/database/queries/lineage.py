"""Which rows a session shows: its own, and for a fork those of its ancestors up to where it branched off.

A fork holds no copy. It names its parent and the last sequence number it takes from there (``fork_seq``), and its own
rows have greater numbers. So the rows a session shows are, along the chain of its ancestors, each one's own rows up to
the least ``fork_seq`` below it: numbers never overlap, and their order is the order of the history.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CTE, BigInteger, ColumnElement, Select, and_, case, func, literal, select, union_all
from sqlalchemy.orm import aliased

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import holds, of_tenant
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = ["Segment", "counted", "lineage", "segments", "shown"]


class Segment(NamedTuple):
    """The part of a history that one session's own rows hold: those with numbers up to ``upto``."""

    owner: UUID
    upto: int


def lineage(*scope: ColumnElement[bool]) -> CTE:
    """Each session of the scope (``bearer``) with itself and its ancestors (``owner``), and the last number it shows.

    Ancestors are of the same tenant. Whether they are deleted does not matter: a fork shows those messages too. A row
    that comes again is left out, so parents that make a circle, which no method of ours makes, end as well.
    """
    base = (
        select(
            Session.tenant_id.label("tenant_id"),
            Session.id.label("bearer"),
            Session.id.label("owner"),
            Session.parent_session_id.label("parent"),
            Session.fork_seq.label("fork_seq"),
            literal(MAX_SEQ, BigInteger).label("upto"),
        )
        .where(*scope)
        .cte("lineage", recursive=True)
    )
    parent = aliased(Session)
    return base.union(
        select(
            base.c.tenant_id,
            base.c.bearer,
            parent.id,
            parent.parent_session_id,
            parent.fork_seq,
            case((base.c.fork_seq < base.c.upto, base.c.fork_seq), else_=base.c.upto),
        ).join(parent, and_(parent.tenant_id == base.c.tenant_id, parent.id == base.c.parent))
    )


def shown(line: CTE) -> ColumnElement[bool]:
    """The condition that joins messages to the lineage that shows them."""
    return and_(
        SessionMessage.tenant_id == line.c.tenant_id,
        SessionMessage.session_id == line.c.owner,
        SessionMessage.seq <= line.c.upto,
    )


def segments(tenant_id: str, session_id: UUID) -> Select[Any]:
    """The parts of one history, the newest first."""
    line = lineage(*of_tenant(tenant_id, session_id))
    return select(line.c.owner, line.c.upto).order_by(line.c.upto.desc(), line.c.owner)


def counted(*scope: ColumnElement[bool], above: int = 0) -> Select[Any]:
    """Messages and declared tokens that each session of the scope shows, and its greatest number, counted row by row.

    The scope is within one tenant. Sessions that show nothing are left out.
    """
    own = select(SessionMessage.session_id.label("id"), SessionMessage.seq, SessionMessage.token_count).join(
        Session, holds(SessionMessage)
    )
    line = lineage(*scope, Session.parent_session_id.is_not(None))
    inherited = select(line.c.bearer, SessionMessage.seq, SessionMessage.token_count).join(line, shown(line))
    # Apart, so that sessions that are no forks, nearly all, are counted along the primary key.
    both = union_all(
        own.where(*scope, SessionMessage.seq > above),
        inherited.where(line.c.bearer != line.c.owner, SessionMessage.seq > above),
    ).subquery()
    return select(
        both.c.id,
        func.count().label("messages"),
        func.coalesce(func.sum(both.c.token_count), 0).label("tokens"),
        func.max(both.c.seq).label("last_seq"),
    ).group_by(both.c.id)
