"""Statements of the transactional outbox."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Delete, Select, Update, delete, func, select, update

from agent_service.core.milliseconds import to_milliseconds
from agent_service.infrastructure.database.models.outbox import OutboxRow

__all__ = ["let_go_when_idle", "listed", "oldest", "remove", "set_aside", "still_here", "take_back", "waiting"]


def oldest(format_: int, size: int, without: Collection[UUID], only: Collection[UUID] | None) -> Any:
    """Select at most ``size`` rows of a format, the oldest first.

    PostgreSQL locks them and skips those that another transaction has locked. SQLite locks nothing.
    """
    rows = select(OutboxRow.id, OutboxRow.body).where(OutboxRow.failed_at.is_(None), OutboxRow.format == format_)
    if without:
        rows = rows.where(OutboxRow.id.not_in(without))
    if only is not None:
        rows = rows.where(OutboxRow.id.in_(only))
    return rows.order_by(OutboxRow.id).limit(size).with_for_update(skip_locked=True)


def waiting(format_: int, most: int) -> Select[Any]:
    """Count the rows of a format that are not done, at most so many, and select when the oldest was added."""
    left = OutboxRow.failed_at.is_(None), OutboxRow.format == format_
    some = select(OutboxRow.id).where(*left).limit(most).subquery()
    oldest = select(OutboxRow.created_at).where(*left).order_by(OutboxRow.id).limit(1)
    return select(select(func.count()).select_from(some).scalar_subquery(), oldest.scalar_subquery())


def let_go_when_idle(patience: timedelta) -> Select[Any]:
    """Have PostgreSQL end this transaction, and unlock its rows, once it was idle for so long."""
    milliseconds = str(to_milliseconds(patience.total_seconds()))
    return select(func.set_config("idle_in_transaction_session_timeout", milliseconds, True))


def still_here() -> Select[Any]:
    """A statement that only shows that the transaction is not idle."""
    return select(1)


def remove(ids: Collection[UUID]) -> Delete:
    """Remove rows that are done, except those that another transaction has locked."""
    free = select(OutboxRow.id).where(OutboxRow.id.in_(ids)).with_for_update(skip_locked=True)
    return delete(OutboxRow).where(OutboxRow.id.in_(free)).execution_options(synchronize_session=False)


def set_aside(ids: Collection[UUID], now: datetime) -> Update:
    """Mark rows as failed, so that nobody takes them."""
    aside = update(OutboxRow).where(OutboxRow.id.in_(ids)).values(failed_at=now)
    return aside.execution_options(synchronize_session=False)


def listed(most: int, *, failed: bool) -> Any:
    """Select rows of any format, the oldest first.

    :param failed: only those that are set aside.
    """
    rows = select(OutboxRow.id, OutboxRow.format, OutboxRow.body, OutboxRow.created_at, OutboxRow.failed_at)
    return (rows.where(OutboxRow.failed_at.is_not(None)) if failed else rows).order_by(OutboxRow.id).limit(most)


def take_back(ids: Collection[UUID] | None) -> Update:
    """Clear the mark of failed rows, so that they are tried again.

    :param ids: which; None: all.
    """
    failed = update(OutboxRow).where(OutboxRow.failed_at.is_not(None)).values(failed_at=None)
    wanted = failed if ids is None else failed.where(OutboxRow.id.in_(ids))
    return wanted.execution_options(synchronize_session=False)
