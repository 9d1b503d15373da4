"""Marking a session as watched, so that it announces what happens to it."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Update, func, select, update

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import one

__all__ = ["LEASE", "watch"]

LEASE: Final = timedelta(seconds=60)
"""How long a session stays watched unless the mark is renewed."""


def watch(tenant_id: str, session_id: UUID) -> Update:
    """Have the session announce its changes for a while, by PostgreSQL's clock; its id comes back when that worked.

    A session that another transaction has locked is skipped instead of waited for. An append after the mark commits
    with a NOTIFY; one before it can be read.
    """
    free = select(Session.id).where(*one(tenant_id, session_id)).with_for_update(key_share=True, skip_locked=True)
    return (
        update(Session)
        .where(Session.tenant_id == tenant_id, Session.id.in_(free))
        .values(watched_until=func.clock_timestamp() + LEASE)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )
