"""Removing threads that nobody writes to any more, and those of a user: in a session's transaction."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.checkpoints.statements import new_id
from agent_service.infrastructure.database.checkpoints.threads import Thread, lock_threads_of_user, remove_locked
from agent_service.infrastructure.database.models.checkpoint import CheckpointThread
from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of

__all__ = ["remove_idle_threads", "remove_threads_of_user"]

_LAG: Final = timedelta(minutes=10)
"""How much earlier than the last write ``active_at`` may be."""
_STEP: Final = 50
"""Threads that are removed by one round of statements."""


async def remove_idle_threads(db: AsyncSession, before: datetime, size: int) -> int:
    """Remove at most ``size`` threads, of any tenant, to which nobody wrote since a moment; the longest idle first.

    Threads that another transaction works with are skipped. On SQLite the transaction has to hold the write lock.

    :return: how many were removed; 0 also where the database is not migrated.
    """
    return await (await db.connection()).run_sync(_remove_idle, before - _LAG, size)


async def remove_threads_of_user(db: AsyncSession, tenant_id: str, user_id: str, *, most: int | None = None) -> int:
    """Remove threads of a user, all of them or so many.

    :return: how many were removed; 0 also where the database is not migrated.
    """
    return await (await db.connection()).run_sync(_remove_of_user, tenant_id, user_id, most)


def _remove_idle(connection: Connection, before: datetime, size: int) -> int:
    if not _is_migrated(connection):
        return 0
    table = CheckpointThread
    due = select(table.tenant_id, table.thread_id, table.id, table.space, table.user_id)
    due = due.where(table.active_at < before).order_by(table.active_at).limit(size)
    by_tenant: dict[str, list[Thread]] = {}
    for tenant_id, thread_id, key, space, user_id in connection.execute(due.with_for_update(skip_locked=True)):
        found = Thread(thread_id, new_id(connection, key), new_id(connection, space), user_id)
        by_tenant.setdefault(tenant_id, []).append(found)
    return sum(remove_locked(connection, tenant_id, threads) for tenant_id, threads in by_tenant.items())


def _remove_of_user(connection: Connection, tenant_id: str, user_id: str, most: int | None) -> int:
    if not _is_migrated(connection):
        return 0
    removed = 0
    while most is None or removed < most:
        step = _STEP if most is None else min(_STEP, most - removed)
        threads = lock_threads_of_user(connection, tenant_id, user_id, step)
        if not threads:
            break
        removed += remove_locked(connection, tenant_id, threads)
    return removed


def _is_migrated(connection: Connection) -> bool:
    names = names_of(connection)
    return has_table(connection, names.schema, names.local("checkpoint_threads"))
