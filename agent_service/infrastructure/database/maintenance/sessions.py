"""What the cleanup does with sessions: complete the expired, remove long deleted ones, index messages."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.maintenance.batches import in_batches, purge_in_batches
from agent_service.infrastructure.database.maintenance.removal import remove_sessions, try_lock_families
from agent_service.infrastructure.database.queries.expiry import expire_batch, merge_titles
from agent_service.infrastructure.database.queries.retention import purgeable
from agent_service.infrastructure.database.queries.search_index import index_oldest
from agent_service.infrastructure.database.transactions.clock import database_now

__all__ = ["index_messages", "purge", "sweep"]

_MERGE_EVERY: Final = 5_000
"""Completed sessions after which their titles are merged into PostgreSQL's search index. Otherwise
PostgreSQL does it after some megabytes, in any transaction, and writers of rows that this one has locked would wait."""


async def sweep(database: DatabaseManager, *, batch_size: int = 1000, clock: Clock = SYSTEM_CLOCK) -> int:
    """Complete what has expired by now, batch by batch, each in a transaction of its own.

    Sessions that someone is writing to are skipped: they are no longer idle.

    :param batch_size: most sessions in a batch; there are fewer where a batch takes longer than a writer should wait.
    :param clock: replaces the database's own clock.
    :return: how many sessions were completed.
    """
    now: datetime | None = None
    unmerged = 0

    async def batch(db: AsyncSession, size: int) -> int:
        nonlocal now
        now = now or await database_now(db, clock)
        result: Any = await db.execute(expire_batch(db.get_bind().dialect.name, now, size))
        return int(result.rowcount)

    async def merge(done: int) -> None:
        nonlocal unmerged
        unmerged += done
        if unmerged >= _MERGE_EVERY and not database.embedded:
            unmerged = 0
            await _merge_titles(database)

    return await in_batches(database, "complete expired sessions", batch, batch_size, after=merge)


async def _merge_titles(database: DatabaseManager) -> None:
    async with database.session() as db:
        with database_errors("merge titles into the search index"):
            await (await db.connection()).run_sync(merge_titles)


async def purge(
    database: DatabaseManager,
    older_than: timedelta | datetime,
    *,
    batch_size: int = 1000,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Remove for good what was deleted long enough ago, of all tenants, each batch in a transaction of its own.

    :param older_than: a retention time, or the moment before which sessions must have been deleted.
    :param batch_size: most sessions in a batch.
    :param clock: replaces the database's own clock.
    :return: how many sessions were removed.
    """
    removed = 0

    async def batch(db: AsyncSession, before: datetime, size: int) -> int:
        nonlocal removed
        due = (await db.execute(purgeable(db.get_bind().dialect.name, before, size))).all()
        gone = await remove_sessions(db, await try_lock_families(db, due))
        removed += gone
        return len(due) if gone else 0

    await purge_in_batches(database, "purge deleted sessions", older_than, batch, batch_size, clock=clock)
    return removed


async def index_messages(database: DatabaseManager, *, batch_size: int = 1000) -> int:
    """Index the messages of an SQLite database that still wait for it, each batch in a transaction of its own.

    PostgreSQL indexes them when they are appended.

    :return: how many were indexed.
    """
    if not database.embedded:
        return 0

    async def batch(db: AsyncSession, size: int) -> int:
        connection = await db.connection()
        return await connection.run_sync(index_oldest, size)

    return await in_batches(database, "index messages for search", batch, batch_size)
