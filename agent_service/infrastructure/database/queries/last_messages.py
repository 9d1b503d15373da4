"""One field of the last message of each of many sessions, without reading the messages."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.orm import aliased

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import holds, visible

__all__ = ["last_field"]


def last_field(dialect: str, tenant_id: str, ids: Sequence[UUID], name: str) -> Select[Any]:
    """Select id, and a top-level field of the last own message, of those sessions that have messages of their own.

    The field comes as a JSON array that begins with it, as it was written: so a number is read back exactly. A field
    that is missing is null.
    """
    later = aliased(SessionMessage)
    last = (
        select(func.max(later.seq))
        .where(later.tenant_id == Session.tenant_id, later.session_id == Session.id)
        .correlate(Session)
        .scalar_subquery()
    )
    data: Any = SessionMessage.data
    field: Any
    if dialect == "sqlite":
        path = f'$."{name}"'
        field = func.json_extract(data, path, path, type_=Text)  # of two paths: an array, of their texts
    else:
        field = cast(func.json_build_array(data.op("->")(cast(name, Text))), Text)
    fields: Select[Any] = select(Session.id, field)
    joined = fields.join(SessionMessage, holds(SessionMessage))
    return joined.where(*visible(tenant_id), Session.id.in_(ids), SessionMessage.seq == last)
