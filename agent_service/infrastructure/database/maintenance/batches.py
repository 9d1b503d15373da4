"""Work in short transactions: a writer of a row waits for the batch that holds it."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.transactions.clock import database_now
from agent_service.infrastructure.database.values.validation import require_retention

__all__ = ["in_batches", "purge_in_batches"]

_SECONDS: Final = 0.03
"""Seconds that a batch aims to lock its rows on PostgreSQL, commit included: a writer of one of them waits that long,
as a rule far less than 50 milliseconds. With shorter batches most of the time would go into commits."""
_SECONDS_EMBEDDED: Final = 0.01
"""The same on SQLite, where every writer waits, and committing costs less."""
_FIRST_BATCH: Final = 50
_LEAST_BATCH: Final = 10


async def in_batches(
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


async def purge_in_batches(
    database: DatabaseManager,
    action: str,
    age: timedelta | datetime,
    remove: Callable[[AsyncSession, datetime, int], Awaitable[int]],
    most: int,
    *,
    name: str = "older_than",
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Call ``remove`` as :func:`in_batches` does, with the moment before which something is old.

    :param age: a retention time, or that moment. The database's clock counts.
    :param name: of the argument that ``age`` was, for errors.
    """
    require_retention(age, name, clock.now())
    before: datetime | None = None

    async def batch(db: AsyncSession, size: int) -> int:
        nonlocal before
        before = before or require_retention(age, name, await database_now(db, clock))
        return await remove(db, before, size)

    return await in_batches(database, action, batch, most)
