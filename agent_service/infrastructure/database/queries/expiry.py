"""Completing expired sessions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, and_, select, text, tuple_, update

from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.locks import where_in_order

__all__ = ["expire", "expire_batch", "merge_titles"]

# Only the index's owner may; others leave it to PostgreSQL.
_MERGE_TITLES = text(
    "SELECT gin_clean_pending_list(oid) FROM pg_class "
    "WHERE oid = to_regclass(:index)::oid AND pg_has_role(relowner, 'USAGE')"
)


def merge_titles(connection: Connection) -> None:
    """Bring PostgreSQL's index of titles up to date, where there is one, without locking a session."""
    connection.execute(_MERGE_TITLES, {"index": names_of(connection).full("ix_sessions_title_trigram")})


def expire(dialect: str, now: datetime, *scope: ColumnElement[bool]) -> Update:
    """Complete the ACTIVE, undeleted sessions with ``expires_at <= now``; ``last_activity_at`` stays.

    A session that is appended to meanwhile is checked again after that append, and left alone.
    """
    return where_in_order(dialect, _complete(now), *scope, *_expired(now))


def expire_batch(dialect: str, now: datetime, size: int) -> Update:
    """Complete at most ``size`` sessions of all tenants, the longest expired first, skipping locked ones."""
    key = (Session.tenant_id, Session.id)
    due: Any = select(*key).where(*_expired(now)).order_by(Session.expires_at).limit(size)
    if dialect == "postgresql":
        # A CTE that locks is run once. A subquery that IN is given may be run again for each row, past its limit.
        chosen = due.with_for_update(skip_locked=True).cte("due")
        condition = and_(Session.tenant_id == chosen.c.tenant_id, Session.id == chosen.c.id)
    else:
        condition = tuple_(*key).in_(due)
    return _complete(now).where(condition).execution_options(synchronize_session=False)


def _complete(now: datetime) -> Update:
    return update(Session).values(
        status=SessionStatus.COMPLETED, completed_at=now, updated_at=now, version=Session.version + 1
    )


def _expired(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Session.status == SessionStatus.ACTIVE, Session.deleted_at.is_(None), Session.expires_at <= now
