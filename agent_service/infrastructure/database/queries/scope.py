"""Conditions: which sessions a caller may see, and which of them are active.

Every key begins with the tenant, so every condition does: the primary keys serve it, and no statement crosses tenants.
What sessions are compared with is a value, or a parameter of a statement that is prepared.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_

from agent_service.infrastructure.database.models.session import Session, SessionStatus

__all__ = ["active", "holds", "of_tenant", "one", "visible"]


def visible(tenant_id: Any) -> tuple[ColumnElement[bool], ...]:
    """Sessions of the tenant that are not deleted."""
    return Session.tenant_id == tenant_id, Session.deleted_at.is_(None)


def of_tenant(tenant_id: Any, session_id: Any) -> tuple[ColumnElement[bool], ...]:
    """The one session of the tenant, deleted or not."""
    return Session.tenant_id == tenant_id, Session.id == session_id


def one(tenant_id: Any, session_id: Any) -> tuple[ColumnElement[bool], ...]:
    """The one session, if it is visible."""
    return *of_tenant(tenant_id, session_id), Session.deleted_at.is_(None)


def holds(message: Any) -> ColumnElement[bool]:
    """The condition that joins messages, or their rows in SQLite's search index, to their sessions."""
    return and_(Session.tenant_id == message.tenant_id, Session.id == message.session_id)


def active(now: Any) -> tuple[ColumnElement[bool], ...]:
    """Sessions that are ACTIVE and have not expired, swept or not."""
    return Session.status == SessionStatus.ACTIVE, Session.expires_at > now
