"""Writing in a transaction of the caller's."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.infrastructure.database.append.sqlite import as_writer
from agent_service.infrastructure.database.checkpoints.batch import Rows, rows_of
from agent_service.infrastructure.database.checkpoints.changes import Change
from agent_service.infrastructure.database.checkpoints.postgres import statement_for
from agent_service.infrastructure.database.checkpoints.sqlite import write_locked
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.driver import fetch_rows
from agent_service.infrastructure.database.transactions.own_sessions import accept_session
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.infrastructure.database.values.validation import require_tenant

__all__ = ["moved_now", "write_changes", "write_rows"]


async def write_changes(db: AsyncSession, changes: Iterable[Change], *, tenant_id: str = "") -> None:
    """Write checkpoints and writes of a tenant's threads in a session's transaction, which its owner commits.

    One statement on PostgreSQL, and a few on SQLite, however many changes there are: keep them to some megabytes. A
    thread that is not there is made. Until the transaction ends, others wait who write to these threads.

    :raises DatabaseError: the database failed, or is not migrated.
    :raises SessionValueError: ``db`` or ``tenant_id`` cannot be used.
    """
    tenant, db = require_tenant(tenant_id), accept_session(db)
    serve_tenant(db, tenant)
    rows = rows_of(changes, moved_now())
    if not rows.threads:
        return
    with database_errors("save checkpoints"):
        connection = await db.connection()
        await connection.run_sync(write_rows, tenant, rows)


def write_rows(connection: Connection, tenant_id: str, rows: Rows) -> None:
    """Write the rows in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        statement, parameters = statement_for(tenant_id, rows)
        fetch_rows(connection, names_of(connection).render(statement), parameters)
    else:
        as_writer(connection, lambda run: write_locked(run, tenant_id, rows))


def moved_now() -> datetime | None:
    """Return the time of the system clock if a test has moved it, which the database cannot know."""
    return SYSTEM_CLOCK.now() if SYSTEM_CLOCK.is_moved else None
