"""The clock that decides what cannot be undone: the database's, which is one for all hosts.

A host whose clock is 30 days ahead would remove what was deleted this morning, and one that is 30 days behind would
mark as long deleted what it deletes now. SQLite's clock is that of its host.
"""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock

__all__ = ["database_now"]


async def database_now(db: AsyncSession, clock: Clock) -> datetime:
    """Return the current time of the database, or of ``clock`` if that is not the system clock."""
    if clock is not SYSTEM_CLOCK or SYSTEM_CLOCK.is_moved or db.get_bind().dialect.name != "postgresql":
        return clock.now()
    moment: datetime = (await db.execute(select(func.clock_timestamp()))).scalar_one()
    return moment
