"""What the processes of a service measure, one row each, until it expires by the clock of the database."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.fleet import FleetRow
from agent_service.infrastructure.database.transactions.clock import database_now

__all__ = ["keep_snapshot", "kept_snapshots"]


async def keep_snapshot(
    database: DatabaseManager, process: str, snapshot: str, *, seconds: float, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Keep the snapshot of a process in place of its last one, and remove those that have expired.

    :param seconds: how long it is kept.
    :param clock: replaces the database's own clock.
    :raises DatabaseError: the database failed, or is not migrated.
    """
    async with database.session(read_committed=True) as db:
        with database_errors("keep what this process measures"):
            now = await database_now(db, clock)
            dialect = postgresql if db.get_bind().dialect.name == "postgresql" else sqlite
            row = {"process": process, "snapshot": snapshot, "expires_at": now + timedelta(seconds=seconds)}
            insert = dialect.insert(FleetRow).values(row)
            await db.execute(insert.on_conflict_do_update(index_elements=[FleetRow.process], set_=row))
            expired = delete(FleetRow).where(FleetRow.expires_at <= now)
            await db.execute(expired.execution_options(synchronize_session=False))


async def kept_snapshots(database: DatabaseManager, *, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Return the snapshots that have not expired.

    :param clock: replaces the database's own clock.
    :raises DatabaseError: the database failed, or is not migrated.
    """
    async with database.session(readonly=True) as db:
        with database_errors("read what processes measure"):
            now = await database_now(db, clock)
            return list(await db.scalars(select(FleetRow.snapshot).where(FleetRow.expires_at > now)))
