"""Expired sessions, completed on a schedule without getting in anyone's way."""

import asyncio

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.core.logging import logger
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors import database_errors
from agent_service.infrastructure.database.queries.expiry import expire_batch
from agent_service.infrastructure.database.validation import require_count

__all__ = ["run_cleanup", "sweep"]

MAX_BATCH = 100_000


async def run_cleanup(*, interval: float, batch_size: int = 1000) -> None:
    """Complete the expired sessions of all tenants, now and then every ``interval`` seconds, until cancelled.

    Safe on any number of replicas at once. While the database cannot be reached the schedule goes on; the first failure
    and the recovery are logged. Cancelling it loses at most the batch under way.

    :param interval: seconds from the end of one sweep to the next.
    :param batch_size: sessions per transaction.
    :raises SessionValueError: an interval or batch size that cannot be.
    """
    if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval <= 86_400 * 365:
        raise SessionValueError(f"interval must be seconds above 0, at most a year, got {interval!r:.80}")
    require_count(batch_size, "batch_size", most=MAX_BATCH)
    failing = False
    while True:
        try:
            completed = await sweep(get_database(), batch_size=batch_size)
        except DatabaseError as exc:
            if not failing:
                logger.warning("cleanup of expired sessions fails and will be tried again: %s", exc)
            failing = True
        else:
            if failing:
                logger.info("cleanup of expired sessions works again")
            failing = False
            if completed:
                logger.info("completed %d expired sessions", completed)
        await asyncio.sleep(interval)


async def sweep(database: DatabaseManager, *, batch_size: int = 1000, clock: Clock = SYSTEM_CLOCK) -> int:
    """Complete what has expired by now, batch by batch, each in a transaction of its own.

    Sessions that someone is writing to are skipped: they are no longer idle.

    :return: how many sessions were completed.
    """
    now, total = clock.now(), 0
    while True:
        async with database.session() as db:
            with database_errors("complete expired sessions"):
                result = await db.execute(expire_batch(now, batch_size))
            completed: int = result.rowcount  # type: ignore[attr-defined]
        total += completed
        if completed < batch_size:
            return total
