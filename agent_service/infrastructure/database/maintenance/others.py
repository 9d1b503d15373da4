"""What the cleanup does with everything that is not a session: contexts, and what agent frameworks keep."""

from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.database.checkpoints.retention import remove_idle_threads
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.conversations.ending import remove_unsaved
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.items.writes import remove_expired
from agent_service.infrastructure.database.maintenance.batches import in_batches, purge_in_batches
from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of

__all__ = ["expire_contexts", "expire_items", "purge_conversations", "purge_threads"]


async def expire_contexts(database: DatabaseManager, *, batch_size: int = 1000) -> int:
    """Remove contexts of the package's own table whose time to live is over, each batch in a transaction of its own.

    :return: how many were removed.
    """
    table = KeyValueTable(database.session)

    async def batch(db: AsyncSession, size: int) -> int:
        return await table.within(db).remove_expired(size)

    return await in_batches(database, "remove expired contexts", batch, batch_size)


async def expire_items(database: DatabaseManager, *, batch_size: int = 1000) -> int:
    """Remove items of stores, of all tenants, whose time to live is over, each batch in a transaction of its own.

    A database of an earlier revision has none.

    :return: how many were removed.
    """

    async def batch(db: AsyncSession, size: int) -> int:
        connection = await db.connection()
        return await connection.run_sync(_remove_items, size)

    return await in_batches(database, "remove expired items", batch, batch_size)


def _remove_items(connection: Connection, size: int) -> int:
    names = names_of(connection)
    return remove_expired(connection, size) if has_table(connection, names.schema, names.local("store_items")) else 0


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
    return await purge_in_batches(
        database, "purge idle threads", idle_for, remove_idle_threads, batch_size, name="idle_for", clock=clock
    )


async def purge_conversations(
    database: DatabaseManager,
    older_than: timedelta | datetime,
    *,
    batch_size: int = 1000,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Remove conversations of all tenants that were last saved long enough ago, each batch in a transaction of its own.

    Messages that other conversations show stay with those. The database noted when each was saved.

    :param older_than: a retention time, or the moment before which they must have been saved.
    :param clock: replaces the database's own clock.
    :return: how many were removed.
    """
    removed = 0

    async def batch(db: AsyncSession, before: datetime, size: int) -> int:
        nonlocal removed
        found, gone = await remove_unsaved(db, before, size)
        removed += gone
        return found if gone else 0  # One that somebody works on does not keep the others

    await purge_in_batches(database, "remove conversations", older_than, batch, batch_size, clock=clock)
    return removed
