"""Statistics from the counters that every append keeps; messages are never scanned."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Date, and_, cast, func, select

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import active

__all__ = ["GroupBy", "totals"]

GroupBy = Literal["agent", "day"]


def totals(dialect: str, now: datetime, group_by: GroupBy | None, *scope: ColumnElement[bool]) -> Any:
    """Sessions, active sessions, messages and declared tokens of the scope: in one row, or one row a group."""
    counters: Any = select(
        func.count().label("total_sessions"),
        func.count().filter(and_(*active(now))).label("active_sessions"),
        func.coalesce(func.sum(Session.total_messages), 0).label("total_messages"),
        func.coalesce(func.sum(Session.total_tokens), 0).label("total_tokens"),
    ).where(*scope)
    if group_by is None:
        return counters
    key: Any = Session.agent_id if group_by == "agent" else _day(dialect)
    return counters.add_columns(key.label("key")).group_by(key).order_by(key)


def _day(dialect: str) -> ColumnElement[Any]:
    """The day, in UTC, on which a session was created."""
    if dialect == "postgresql":
        return cast(func.timezone("UTC", Session.created_at), Date)
    return func.date(Session.created_at, type_=Date)
