"""Changing a session's documents: merging into a context is one atomic statement, the rest is done under a lock."""

from typing import Any
from uuid import UUID

from sqlalchemy import String, Update, bindparam, cast, func, update
from sqlalchemy.dialects.postgresql import JSONB

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import one

__all__ = ["lock", "merge"]


def merge(dialect: str, tenant_id: str, session_id: UUID, patch: str, expected_version: int | None) -> Update:
    """Set the top-level keys of a JSON object, count the version up, return version and context."""
    text = bindparam("patch", patch, type_=String)
    merged: Any
    if dialect == "postgresql":
        merged = Session.context.op("||", return_type=Session.context.type)(cast(text, JSONB))
    else:
        merged = func.json_merge(Session.context, text, type_=String)
    conditions = one(tenant_id, session_id)
    if expected_version is not None:
        conditions = (*conditions, Session.version == expected_version)
    return (
        update(Session)
        .where(*conditions)
        .values(context=merged, version=Session.version + 1)
        .returning(Session.version, Session.context)
        .execution_options(synchronize_session=False)
    )


def lock(tenant_id: str, session_id: UUID, expected_version: int | None, document: Any = Session.context) -> Update:
    """Count the version up, which locks the row until the transaction ends; return version and document."""
    conditions = one(tenant_id, session_id)
    if expected_version is not None:
        conditions = (*conditions, Session.version == expected_version)
    return (
        update(Session)
        .where(*conditions)
        .values(version=Session.version + 1)
        .returning(Session.version, document)
        .execution_options(synchronize_session=False)
    )
