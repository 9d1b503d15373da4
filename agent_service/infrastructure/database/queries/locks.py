"""Holding sessions still until the transaction ends."""

from typing import Any

from sqlalchemy import ColumnElement, false, select, update

from agent_service.infrastructure.database.models.session import Session

__all__ = ["TAKE_WRITE_LOCK", "hold"]

TAKE_WRITE_LOCK = update(Session).where(false()).values(last_seq=Session.last_seq)
"""Changes nothing, and on SQLite waits until nobody else writes."""


def hold(dialect: str, *scope: ColumnElement[bool], shared: bool = False) -> Any:
    """Keep the sessions of the scope from being changed by others; gives their keys, in the order they were locked.

    PostgreSQL locks the rows (``shared``: others may hold them still too). SQLite has one lock, which a write takes.
    """
    key = (Session.tenant_id, Session.id)
    if dialect == "postgresql":
        return select(*key).where(*scope).order_by(*key).with_for_update(read=shared)
    unchanged = update(Session).where(*scope).values(version=Session.version)
    return unchanged.returning(*key).execution_options(synchronize_session=False)
