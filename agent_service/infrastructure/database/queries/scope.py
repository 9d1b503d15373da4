"""Which sessions a caller may see at all, and which of them are active."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement

from agent_service.infrastructure.database.models.session import Session, SessionStatus

__all__ = ["active", "one", "visible"]


def visible(tenant_id: str) -> tuple[ColumnElement[bool], ...]:
    """Sessions of the tenant that are not deleted."""
    return Session.tenant_id == tenant_id, Session.deleted_at.is_(None)


def one(tenant_id: str, session_id: UUID) -> tuple[ColumnElement[bool], ...]:
    """The one session, if it is visible."""
    return Session.id == session_id, *visible(tenant_id)


def active(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Sessions that are ACTIVE and have not expired, swept or not."""
    return Session.status == SessionStatus.ACTIVE, Session.expires_at > now
