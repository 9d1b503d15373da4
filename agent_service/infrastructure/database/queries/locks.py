"""Locking sessions until the transaction ends."""

from typing import Any

from sqlalchemy import ColumnElement, Update, false, select, update

from agent_service.infrastructure.database.models.session import Session

__all__ = ["TAKE_WRITE_LOCK", "lock_sessions", "where_in_order"]

TAKE_WRITE_LOCK = update(Session).where(false()).values(last_seq=Session.last_seq)
"""Changes nothing, and on SQLite waits until nobody else writes."""


def lock_sessions(dialect: str, *scope: ColumnElement[bool], shared: bool = False, skip_locked: bool = False) -> Any:
    """Lock the sessions of the scope against changes by others; return their keys, in the order they were locked.

    PostgreSQL locks the rows (``shared``: others may share the lock; ``skip_locked``: only rows that no other
    transaction has locked). SQLite has one lock, which a write takes.
    """
    key = (Session.tenant_id, Session.id)
    if dialect == "postgresql":
        return select(*key).where(*scope).order_by(*key).with_for_update(read=shared, skip_locked=skip_locked)
    unchanged = update(Session).where(*scope).values(version=Session.version)
    return unchanged.returning(*key).execution_options(synchronize_session=False)


def where_in_order(dialect: str, change: Update, *scope: ColumnElement[bool]) -> Update:
    """Restrict a change of many sessions to a scope, and lock them in the order of their keys.

    Everything that locks several sessions does it in this order, so that two transactions never wait in a circle. An
    UPDATE by itself locks in whatever order it comes upon the rows.
    """
    if dialect != "postgresql":
        return change.where(*scope)
    key = (Session.tenant_id, Session.id)
    # PostgreSQL checks a row again once it is locked: the CTE returns it only if it still belongs to the scope.
    locked = select(*key).where(*scope).order_by(*key).with_for_update(key_share=True).cte("locked")
    return change.where(Session.tenant_id == locked.c.tenant_id, Session.id == locked.c.id)
