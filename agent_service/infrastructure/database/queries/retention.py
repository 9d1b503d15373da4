"""Which hidden sessions are due to be purged."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, tuple_

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.locks import lock_sessions

__all__ = ["purgeable"]


def purgeable(dialect: str, before: datetime, size: int, *scope: ColumnElement[bool]) -> Any:
    """Lock at most ``size`` sessions hidden before a moment, the longest hidden first; return their keys.

    Locked ones are skipped.
    """
    key = (Session.tenant_id, Session.id)
    due: Any = select(*key).where(*scope, Session.deleted_at < before).order_by(Session.deleted_at).limit(size)
    if dialect == "postgresql":
        return due.with_for_update(skip_locked=True)
    return lock_sessions(dialect, tuple_(*key).in_(due))
