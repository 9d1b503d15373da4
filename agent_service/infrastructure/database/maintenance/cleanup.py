"""The scheduled cleanup: complete expired sessions, purge what is old, remove what has expired, index messages.

Batches are short, so that concurrent writers hardly wait.
"""

import asyncio
import logging
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.outages import tell_outage
from agent_service.infrastructure.database.maintenance.counted import SHARED, CleanupCounts, CleanupMetrics, show
from agent_service.infrastructure.database.maintenance.others import (
    expire_contexts,
    expire_items,
    purge_conversations,
    purge_threads,
)
from agent_service.infrastructure.database.maintenance.sessions import index_messages, purge, sweep
from agent_service.infrastructure.database.values.validation import require_count, require_retention

__all__ = ["cleanup_once", "run_cleanup"]

logger = logging.getLogger("agent_service.database")

MAX_BATCH: Final = 100_000


async def run_cleanup(
    *,
    interval: float,
    batch_size: int = 1000,
    purge_after: timedelta | None = None,
    purge_threads_after: timedelta | None = None,
    purge_conversations_after: timedelta | None = None,
    metrics: CleanupMetrics | None = None,
    database: DatabaseManager | None = None,
) -> None:
    """Complete the expired sessions of all tenants, now and then every ``interval`` seconds, until cancelled.

    It also removes contexts of the package's own table and items of stores whose time to live is over. On SQLite it
    indexes for search what was appended and is not indexed yet.

    Safe on any number of replicas at once: each skips what another has locked. While the database cannot be reached the
    schedule goes on; the first failure and the recovery are logged, once for all who use the database. Cancelling it
    loses at most the batch under way.
    The database's clock says what is over, so a host whose own clock is wrong completes and removes nothing too early.

    :param interval: seconds from the end of one round to the next.
    :param batch_size: most sessions per transaction; there are fewer where one takes longer than 30 milliseconds (on
        SQLite 10), for that is how long a writer of one of them waits.
    :param purge_after: also remove for good what was deleted longer ago than this; None removes nothing.
    :param purge_threads_after: also remove threads of checkpoints to which nobody wrote for this long, ten minutes
        later at most; None removes none.
    :param purge_conversations_after: also remove conversations of Pydantic AI that were last saved longer ago than
        this; None removes none.
    :param metrics: an object that counts what is done; None: one that all such schedules of the process share.
    :param database: whose sessions these are; None: those of the configured database.
    :raises SessionValueError: if interval, batch size or retention is invalid.
    """
    if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval <= 86_400 * 365:
        raise SessionValueError(f"interval must be seconds above 0, at most a year, got {interval!r:.80}")
    retention = _Retention(purge_after, purge_threads_after, purge_conversations_after)
    retention.require_usable()
    require_count(batch_size, "batch_size", most=MAX_BATCH)
    counters = SHARED if metrics is None else metrics
    show(counters)
    failing = False
    while True:
        served = get_database() if database is None else database
        try:
            await _round(served, counters, batch_size, retention)
        except DatabaseError as exc:
            counters.failures += 1
            if not tell_outage(served.availability, exc):
                if not failing:
                    logger.warning("cleanup of sessions fails and will be tried again: %s", exc)
                failing = True
        else:
            if failing:
                logger.info("cleanup of sessions works again")
            failing = False
            if served.availability.away:
                served.availability.answered()
        await asyncio.sleep(interval)


async def cleanup_once(
    *,
    batch_size: int = 1000,
    purge_after: timedelta | None = None,
    purge_threads_after: timedelta | None = None,
    purge_conversations_after: timedelta | None = None,
    database: DatabaseManager | None = None,
) -> CleanupCounts:
    """Do one round of what :func:`run_cleanup` does and return what was done, for a scheduler such as cron or Celery.

    ::

        async def job() -> CleanupCounts:
            try:
                return await cleanup_once(purge_after=timedelta(days=30))
            finally:
                await close_database()

        asyncio.run(job())

    Safe beside any number of others. What was done before an error stays done; run it again.

    :param batch_size: most sessions per transaction, as for :func:`run_cleanup`.
    :param purge_after: also remove for good what was deleted longer ago than this; None removes nothing.
    :param purge_threads_after: also remove threads of checkpoints that are idle, as for :func:`run_cleanup`.
    :param purge_conversations_after: also remove conversations of Pydantic AI, as for :func:`run_cleanup`.
    :param database: None is the one of the settings.
    :raises DatabaseError: the database cannot be reached, or failed.
    :raises SessionValueError: if batch size or retention is invalid.
    """
    retention = _Retention(purge_after, purge_threads_after, purge_conversations_after)
    retention.require_usable()
    require_count(batch_size, "batch_size", most=MAX_BATCH)
    counts = CleanupCounts()
    await _clean(counts, get_database() if database is None else database, batch_size, retention)
    return counts


@dataclass(frozen=True, slots=True)
class _Retention:
    """How long what is old is kept; None: for ever."""

    purge_after: timedelta | None
    purge_threads_after: timedelta | None
    purge_conversations_after: timedelta | None

    def require_usable(self) -> None:
        for each in fields(self):
            if (given := getattr(self, each.name)) is not None:
                require_retention(given, each.name, SYSTEM_CLOCK.now())


async def _clean(counts: CleanupCounts, database: DatabaseManager, batch_size: int, retention: _Retention) -> None:
    """Do one round, and count each part once it is done."""
    counts.completed = await sweep(database, batch_size=batch_size)
    if (age := retention.purge_after) is not None:
        counts.purged = await purge(database, age, batch_size=batch_size)
    if (age := retention.purge_threads_after) is not None:
        counts.purged_threads = await purge_threads(database, age, batch_size=batch_size)
    if (age := retention.purge_conversations_after) is not None:
        counts.purged_conversations = await purge_conversations(database, age, batch_size=batch_size)
    counts.expired_contexts = await expire_contexts(database, batch_size=batch_size)
    counts.expired_items = await expire_items(database, batch_size=batch_size)
    counts.indexed = await index_messages(database, batch_size=batch_size)


async def _round(database: DatabaseManager, metrics: CleanupMetrics, batch_size: int, retention: _Retention) -> None:
    counts, started = CleanupCounts(), SYSTEM_CLOCK.monotonic()
    metrics.rounds += 1
    try:
        await _clean(counts, database, batch_size, retention)
        metrics.last_success = SYSTEM_CLOCK.now()
    finally:
        metrics.last_seconds = SYSTEM_CLOCK.monotonic() - started
        metrics.add(counts)
        if counts.completed:
            logger.info("completed %d expired sessions", counts.completed)
        if counts.purged:
            logger.info("removed %d deleted sessions for good", counts.purged)
        if counts.purged_threads:
            logger.info("removed %d idle threads of checkpoints", counts.purged_threads)
        if counts.purged_conversations:
            logger.info("removed %d old conversations of Pydantic AI", counts.purged_conversations)
