"""Rows of PostgreSQL that somebody holds, and somebody else waits for."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def held(database: DatabaseManager, session_id: UUID) -> AsyncIterator[None]:
    """Hold a session's row as somebody who changes it does."""
    async with database.session() as db:
        await db.execute(
            text("SELECT id FROM agent_service_sessions WHERE id = :id FOR NO KEY UPDATE"), {"id": session_id}
        )
        yield
        await db.rollback()


async def somebody_waits(database: DatabaseManager) -> None:
    """Return once a statement waits for a lock."""
    async with asyncio.timeout(60), database.session() as db:
        while not (await db.execute(text(WAITING))).scalar_one():
            await db.rollback()  # its transaction has one look only
            await asyncio.sleep(0.01)


async def free(database: DatabaseManager, ids: Collection[UUID], strength: str = "NO KEY UPDATE") -> set[UUID]:
    """Return those of the sessions whose rows nobody holds so that they could not be locked like this."""
    async with database.session() as db:
        rows = await db.execute(
            text(f"SELECT id FROM agent_service_sessions WHERE id = ANY(:ids) FOR {strength} SKIP LOCKED"),
            {"ids": list(ids)},
        )
        found = set(rows.scalars())
        await db.rollback()
    return found
