"""Statistics from the counters that every append keeps; messages are never scanned."""

from datetime import datetime

from sqlalchemy import ColumnElement, Executable, and_, func, select

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import active

__all__ = ["totals"]


def totals(now: datetime, *scope: ColumnElement[bool]) -> Executable:
    """Sessions, active sessions, messages and declared tokens of the scope, in one row."""
    return select(
        func.count().label("total_sessions"),
        func.count().filter(and_(*active(now))).label("active_sessions"),
        func.coalesce(func.sum(Session.total_messages), 0).label("total_messages"),
        func.coalesce(func.sum(Session.total_tokens), 0).label("total_tokens"),
    ).where(*scope)
