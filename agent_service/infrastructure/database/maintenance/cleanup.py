"""The scheduled cleanup: complete expired sessions, purge what is old, remove expired contexts, index messages.

Batches are short, so that concurrent writers hardly wait.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.core.living import Living
from agent_service.core.measured import Sample, measured_by
from agent_service.infrastructure.database.checkpoints.retention import remove_idle_threads
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.outages import tell_outage
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.maintenance.removal import remove_sessions, try_lock_families
from agent_service.infrastructure.database.queries.expiry import expire_batch, merge_titles
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.queries.retention import purgeable
from agent_service.infrastructure.database.queries.search_index import index_oldest
from agent_service.infrastructure.database.transactions.clock import database_now
from agent_service.infrastructure.database.values.validation import require_count, require_retention

__all__ = [
    "CleanupCounts",
    "CleanupMetrics",
    "cleanup_once",
    "expire_contexts",
    "index_messages",
    "purge",
    "purge_threads",
    "run_cleanup",
    "sweep",
]

logger = logging.getLogger("agent_service.database")

MAX_BATCH: Final = 100_000

_SECONDS: Final = 0.03
"""Seconds that a batch aims to lock its rows on PostgreSQL, commit included: a writer of one of them waits that long,
as a rule far less than 50 milliseconds. With shorter batches most of the time would go into commits."""
_SECONDS_EMBEDDED: Final = 0.01
"""The same on SQLite, where every writer waits, and committing costs less."""
_FIRST_BATCH: Final = 50
_LEAST_BATCH: Final = 10
_MERGE_EVERY: Final = 5_000
"""Completed sessions after which their titles are merged into PostgreSQL's search index. Otherwise
PostgreSQL does it after some megabytes, in any transaction, and writers of rows that this one has locked would wait."""


@dataclass(slots=True)
class CleanupCounts:
    """How many sessions one cleanup completed and removed, contexts and threads it removed, and messages it indexed."""

    completed: int = 0
    purged: int = 0
    expired_contexts: int = 0
    indexed: int = 0
    purged_threads: int = 0


@dataclass(slots=True, weakref_slot=True)
class CleanupMetrics:
    """What a schedule has done since it started. Reading it costs nothing.

    ``completed`` and ``purged`` count sessions, ``expired_contexts`` contexts and ``purged_threads`` threads of
    checkpoints, also those of a round that failed later on; ``last_seconds`` is how long the latest round took, and
    ``last_success`` when one last went well.
    """

    rounds: int = 0
    failures: int = 0
    completed: int = 0
    purged: int = 0
    expired_contexts: int = 0
    last_seconds: float = 0.0
    last_success: datetime | None = None
    purged_threads: int = 0


_metrics: Final = CleanupMetrics()
"""Counts the schedules of this process that were given no object to count in."""
_all_metrics: Final = Living[CleanupMetrics]()
_all_metrics.add(_metrics)


def _samples() -> Iterator[Sample]:
    """Yield what the schedules of this process have done."""
    known = _all_metrics.all()
    yield Sample("cleanup_rounds", sum(each.rounds for each in known))
    yield Sample("cleanup_failures", sum(each.failures for each in known))
    yield Sample("cleanup_sessions", sum(each.completed for each in known), ("completed",))
    yield Sample("cleanup_sessions", sum(each.purged for each in known), ("purged",))
    yield Sample("cleanup_expired_contexts", sum(each.expired_contexts for each in known))
    yield Sample("cleanup_purged_threads", sum(each.purged_threads for each in known))
    yield Sample("cleanup_last_round_seconds", max(each.last_seconds for each in known))
    successes = [each.last_success.timestamp() for each in known if each.last_success is not None]
    yield Sample("cleanup_last_success_timestamp_seconds", max(successes, default=0))


measured_by("cleanup", _samples)


async def run_cleanup(
    *,
    interval: float,
    batch_size: int = 1000,
    purge_after: timedelta | None = None,
    purge_threads_after: timedelta | None = None,
    metrics: CleanupMetrics | None = None,
    database: DatabaseManager | None = None,
) -> None:
    """Complete the expired sessions of all tenants, now and then every ``interval`` seconds, until cancelled.

    It also removes contexts of the package's own table whose time to live is over. On SQLite it indexes for search what
    was appended and is not indexed yet.

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
    :param metrics: an object that counts what is done; None: one that all such schedules of the process share.
    :param database: whose sessions these are; None: those of the configured database.
    :raises SessionValueError: if interval, batch size or retention is invalid.
    """
    if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval <= 86_400 * 365:
        raise SessionValueError(f"interval must be seconds above 0, at most a year, got {interval!r:.80}")
    retention = _Retention(purge_after, purge_threads_after)
    _require_usable(batch_size, retention)
    counters = _metrics if metrics is None else metrics
    _all_metrics.add(counters)
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
    :param database: None is the one of the settings.
    :raises DatabaseError: the database cannot be reached, or failed.
    :raises SessionValueError: if batch size or retention is invalid.
    """
    retention = _Retention(purge_after, purge_threads_after)
    _require_usable(batch_size, retention)
    counts = CleanupCounts()
    await _clean(counts, get_database() if database is None else database, batch_size, retention)
    return counts


@dataclass(frozen=True, slots=True)
class _Retention:
    """How long what is old is kept; None: for ever."""

    purge_after: timedelta | None
    purge_threads_after: timedelta | None


def _require_usable(batch_size: int, retention: _Retention) -> None:
    require_count(batch_size, "batch_size", most=MAX_BATCH)
    for name in ("purge_after", "purge_threads_after"):
        given = getattr(retention, name)
        if given is not None:
            require_retention(given, name, SYSTEM_CLOCK.now())


async def _clean(counts: CleanupCounts, database: DatabaseManager, batch_size: int, retention: _Retention) -> None:
    """Do one round, and count each part once it is done."""
    counts.completed = await sweep(database, batch_size=batch_size)
    if retention.purge_after is not None:
        counts.purged = await purge(database, retention.purge_after, batch_size=batch_size)
    if retention.purge_threads_after is not None:
        idle = retention.purge_threads_after
        counts.purged_threads = await purge_threads(database, idle, batch_size=batch_size)
    counts.expired_contexts = await expire_contexts(database, batch_size=batch_size)
    counts.indexed = await index_messages(database, batch_size=batch_size)


async def _round(database: DatabaseManager, metrics: CleanupMetrics, batch_size: int, retention: _Retention) -> None:
    counts, started = CleanupCounts(), SYSTEM_CLOCK.monotonic()
    metrics.rounds += 1
    try:
        await _clean(counts, database, batch_size, retention)
        metrics.last_success = SYSTEM_CLOCK.now()
    finally:
        metrics.last_seconds = SYSTEM_CLOCK.monotonic() - started
        metrics.completed += counts.completed
        metrics.purged += counts.purged
        metrics.expired_contexts += counts.expired_contexts
        metrics.purged_threads += counts.purged_threads
        if counts.completed:
            logger.info("completed %d expired sessions", counts.completed)
        if counts.purged:
            logger.info("removed %d deleted sessions for good", counts.purged)
        if counts.purged_threads:
            logger.info("removed %d idle threads of checkpoints", counts.purged_threads)


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

    return await _in_batches(database, "complete expired sessions", batch, batch_size, after=merge)


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
    require_retention(older_than, "older_than", clock.now())
    before: datetime | None = None
    removed = 0

    async def batch(db: AsyncSession, size: int) -> int:
        nonlocal before, removed
        before = before or require_retention(older_than, "older_than", await database_now(db, clock))
        due = (await db.execute(purgeable(db.get_bind().dialect.name, before, size))).all()
        gone = await remove_sessions(db, await try_lock_families(db, due))
        removed += gone
        return len(due) if gone else 0

    await _in_batches(database, "purge deleted sessions", batch, batch_size)
    return removed


async def purge_threads(
    database: DatabaseManager,
    idle_for: timedelta | datetime,
    *,
    batch_size: int = 1000,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Remove threads of checkpoints to which nobody wrote lately, of all tenants, batch by batch.

    :param idle_for: how long, or since which moment; the last minutes before a write count as its time too.
    :param batch_size: most threads in a batch.
    :param clock: replaces the database's own clock.
    :return: how many threads were removed.
    """
    require_retention(idle_for, "idle_for", clock.now())
    before: datetime | None = None

    async def batch(db: AsyncSession, size: int) -> int:
        nonlocal before
        before = before or require_retention(idle_for, "idle_for", await database_now(db, clock))
        return await remove_idle_threads(db, before, size)

    return await _in_batches(database, "purge idle threads", batch, batch_size)


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

    return await _in_batches(database, "index messages for search", batch, batch_size)


async def expire_contexts(database: DatabaseManager, *, batch_size: int = 1000) -> int:
    """Remove contexts of the package's own table whose time to live is over, each batch in a transaction of its own.

    :return: how many were removed.
    """
    table = KeyValueTable(database.session)

    async def batch(db: AsyncSession, size: int) -> int:
        return await table.within(db).remove_expired(size)

    return await _in_batches(database, "remove expired contexts", batch, batch_size)


async def _in_batches(
    database: DatabaseManager,
    action: str,
    batch: Callable[[AsyncSession, int], Awaitable[int]],
    most: int,
    *,
    after: Callable[[int], Awaitable[None]] | None = None,
) -> int:
    """Call ``batch`` with a session and a size until it does less, each time in a transaction, and give the sum.

    A writer of a row waits for the batch that holds it, so sizes follow from how long the batch before held its
    locks. Waiting for a connection or for the write lock holds none, and does not count.

    :param after: called with what a batch has done, once it is committed.
    """
    size, total = min(_FIRST_BATCH, most), 0
    aim = _SECONDS_EMBEDDED if database.embedded else _SECONDS
    while True:
        async with database.session(every_tenant=True, read_committed=True) as db:
            with database_errors(action):
                await db.connection()
                if database.embedded:
                    await db.execute(TAKE_WRITE_LOCK)
                started = SYSTEM_CLOCK.monotonic()
                done = await batch(db, size)
        held = SYSTEM_CLOCK.monotonic() - started
        total += done
        if after is not None:
            await after(done)
        if done < size:
            return total
        # One slow batch says little, so it changes the size by a factor of two at most.
        fitting = int(size * aim / max(held, 1e-6))
        size = min(max(fitting, size // 2, _LEAST_BATCH), size * 2, most)
