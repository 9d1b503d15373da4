"""Which hidden sessions have been hidden long enough."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.locks import hold

__all__ = ["purgeable"]


def purgeable(dialect: str, before: datetime, size: int, *scope: ColumnElement[bool]) -> Any:
    """At most ``size`` sessions hidden before a moment, the longest hidden first, locked; locked ones are skipped."""
    due: Any = select(Session.id).where(Session.deleted_at < before, *scope).order_by(Session.deleted_at).limit(size)
    if dialect == "postgresql":
        return due.with_for_update(skip_locked=True)
    return hold(dialect, Session.id.in_(due))
