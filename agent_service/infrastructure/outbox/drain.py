"""Apply what the outbox holds, once.

A batch is taken, applied and removed. Invariants:

1. A row is removed when everything in it has reached the cache that the processes share, and not before. Whatever fails
   earlier (the cache, the database, this process), the row stays, and the next process that drains finds it.
2. On PostgreSQL the rows are locked meanwhile, so that other processes take other rows. SQLite has no such locks: two
   processes may apply the same row, which does no harm.
3. A batch may take minutes, as a pass over all keys of a large cache does. So the lock is renewed while it is applied,
   and applied rows are removed even if the lock was lost.
4. One row that always fails does not block the others. Rows that could not be applied are left for the end of the next
   pass, which then tries half as many at once, until such a row is alone.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final, NamedTuple
from uuid import UUID

from agent_service.core.tracing import span
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.outbox import Claim, claim
from agent_service.infrastructure.outbox.batch import OutboxBatch
from agent_service.infrastructure.outbox.counters import counters

__all__ = ["Drained", "drain", "drain_outbox"]

logger = logging.getLogger("agent_service.outbox")

BATCH: Final = 500
"""The most rows of a transaction."""

_suspects: list[UUID] = []
"""Rows that could not be applied when this process last tried."""


class Drained(NamedTuple):
    """The result of draining: how many rows were applied, and whether the cache could not be reached for the rest."""

    applied: int
    cache_is_away: bool


class _Step(NamedTuple):
    """The result of one batch."""

    applied: int
    all_applied: bool
    is_last: bool


async def drain_outbox() -> int:
    """Apply what the outbox of the configured database holds, oldest first; return how many rows that was.

    For schedulers and tests; a service runs :func:`run_outbox`. Any number of processes may do it at once. Rows that
    cannot reach Redis stay, without an error; rows that cannot be read are logged and set aside.

    All processes must have one REDIS_URL and CACHE_KEY_PREFIX. With REDIS_URL unset only this process's memory is
    invalidated, and no other process will see the row.

    :raises DatabaseError: the database failed; what was not removed stays, and may have been applied.
    :raises ConfigurationError: DATABASE_URL or REDIS_URL cannot be used.
    """
    return (await drain(get_database())).applied


async def drain(database: DatabaseManager) -> Drained:
    """Drain until all rows are applied or taken by other processes, or the cache cannot be reached."""
    await counters.show()
    with span("drain outbox", {}):
        return await _drain(database)


async def _drain(database: DatabaseManager) -> Drained:
    waiting = _suspects.copy()
    applied = 0
    is_last = False
    while not is_last:
        step = await _drain_some(database, BATCH, without=waiting)
        applied += step.applied
        if not step.all_applied:
            return Drained(applied, cache_is_away=True)
        is_last = step.is_last
    at_once = max(1, len(waiting) // 2)
    while waiting:
        step = await _drain_some(database, at_once, only=waiting[:at_once])
        applied += step.applied
        if not step.all_applied:
            return Drained(applied, cache_is_away=True)
        del waiting[:at_once]
    _suspects.clear()
    return Drained(applied, cache_is_away=False)


async def _drain_some(
    database: DatabaseManager, size: int, *, without: Collection[UUID] = (), only: Collection[UUID] | None = None
) -> _Step:
    async with claim(database, size, without=without, only=only) as claimed:
        batch = OutboxBatch(claimed.rows)
        try:
            await _apply(batch, claimed)
        except Exception:
            await _record(batch, claimed)
            raise
        applied = await _record(batch, claimed)
    return _Step(
        applied, all_applied=len(batch.done) == len(batch.readable), is_last=len(batch) == len(claimed.rows) < size
    )


async def _record(batch: OutboxBatch, claimed: Claim) -> int:
    """Remove what was applied, set aside what cannot be read; return how many rows were removed."""
    left = set(batch.readable).difference(batch.done)
    if left:
        _suspects[:] = left
    applied = await claimed.finish(batch.done, batch.unreadable)
    counters.applied += applied
    counters.unreadable += len(batch.unreadable)
    for id_ in batch.unreadable:
        logger.error("row %s of cache_outbox cannot be read: what it invalidates stays cached", id_)
    return applied


async def _apply(batch: OutboxBatch, claimed: Claim) -> None:
    """Apply a batch, and keep its rows locked however long that takes."""
    applying = asyncio.ensure_future(batch.apply())
    try:
        while not applying.done():
            await asyncio.wait((applying,), timeout=claimed.silence)
            if not applying.done():
                await claimed.renew()
    finally:
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
    applying.result()
