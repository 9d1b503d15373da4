"""Doing what the outbox asks for, once.

A batch is read, applied and removed in one transaction, so a row is gone exactly when everything it asked for has
reached the cache that the processes share. Whatever fails before that (the cache, the database, this process) leaves
the row to the next one who looks. On PostgreSQL the rows are locked meanwhile and other processes take others. SQLite
has no such locks, and two processes may do the same work twice.
"""

from typing import Final, NamedTuple

from agent_service.core.logging import logger
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.outbox import remove_rows, set_rows_aside, take_rows
from agent_service.infrastructure.outbox.batch import Batch
from agent_service.infrastructure.outbox.counters import counters

__all__ = ["Drained", "drain", "drain_outbox"]

BATCH: Final = 100
"""Most rows of a transaction."""


class Drained(NamedTuple):
    """What came of draining: how many rows were applied, and whether the cache could not be reached for the rest."""

    applied: int
    cache_is_away: bool


async def drain_outbox() -> int:
    """Apply what the outbox of the configured database holds, oldest first, and give how many rows that was.

    For schedulers and tests; a service runs :func:`run_outbox`. Any number of processes may do it at once. Rows that
    cannot reach Redis stay, without an error; rows that nobody can read are logged and set aside.

    All processes must have one REDIS_URL and CACHE_KEY_PREFIX. With REDIS_URL unset only this process's memory is
    invalidated, and no other process will see the row.

    :raises DatabaseError: the database failed; what was not removed stays, and may have been applied.
    :raises ConfigurationError: DATABASE_URL or REDIS_URL cannot be used.
    """
    return (await drain(get_database())).applied


async def drain(database: DatabaseManager) -> Drained:
    """Drain until nothing is left that no other process has taken, or the cache is away."""
    await counters.show()
    applied = 0
    while True:
        async with database.session(read_committed=True) as db:
            rows = await take_rows(db, BATCH)
            batch = Batch(rows)
            if not await batch.apply():
                await db.rollback()
                return Drained(applied, cache_is_away=True)
            await set_rows_aside(db, batch.unreadable)
            done = await remove_rows(db, batch.readable)
        applied += done
        counters.applied += done
        counters.unreadable += len(batch.unreadable)
        for id_ in batch.unreadable:
            logger.error("row %s of cache_outbox cannot be read: what it invalidates stays cached", id_)
        if len(batch) == len(rows) < BATCH:
            return Drained(applied, cache_is_away=False)
