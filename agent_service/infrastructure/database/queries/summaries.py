"""What a list of conversations shows: some columns of sessions, and one field of the last message of each.

Rows, not objects: a list of thousands of sessions is read for what it shows, and nothing of it is changed.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, and_, cast, func, select
from sqlalchemy.orm import aliased

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import holds, visible

__all__ = ["summaries"]


def summaries(dialect: str, tenant_id: str, ids: Sequence[UUID], field: str) -> Select[Any]:
    """Select id, user_id, context, session_metadata, last_seq, created_at and ``last_field`` of visible sessions.

    ``last_field`` is a JSON array that begins with a top-level field of the session's own last message, as it was
    written: so a number is read back exactly. A field that is missing is null; without messages there is no array.
    """
    later = aliased(SessionMessage)
    last = (
        select(func.max(later.seq))
        .where(later.tenant_id == Session.tenant_id, later.session_id == Session.id)
        .correlate(Session)
        .scalar_subquery()
    )
    data: Any = SessionMessage.data
    shown: Any
    if dialect == "sqlite":
        path = f'$."{field}"'
        shown = func.json_extract(data, path, path, type_=Text)  # of two paths: an array, of their texts
    else:
        shown = cast(func.json_build_array(data.op("->")(cast(field, Text))), Text)
    columns = (Session.user_id, Session.context, Session.session_metadata, Session.last_seq, Session.created_at)
    rows: Select[Any] = select(Session.id, *columns, shown.label("last_field"))
    joined = rows.outerjoin(SessionMessage, and_(holds(SessionMessage), SessionMessage.seq == last))
    return joined.where(*visible(tenant_id), Session.id.in_(ids))
