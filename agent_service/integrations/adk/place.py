"""The database that a service works on: transactions, and a writer, for each event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from agent_service.core.loop_registry import PerLoop
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.contexts.table import engine_sessions
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.transactions.isolation import read_committed
from agent_service.infrastructure.database.transactions.own_sessions import require_engine

__all__ = ["Place"]


class Place:
    """Where sessions are stored.

    :param engine: None is the database of the settings, on every event loop one of its own.
    :raises SessionValueError: the engine cannot be used.
    """

    def __init__(self, engine: AsyncEngine | DatabaseManager | None) -> None:
        if engine is not None and not isinstance(engine, DatabaseManager):
            require_engine(engine)
        self._given = engine
        self._writers = PerLoop(lambda: _Opened(engine), _Opened.close)

    @asynccontextmanager
    async def transaction(self, *, reads_only: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a session that is committed when the block ends well, and rolled back when it raises.

        :param reads_only: for ``one_snapshot``, which the block calls itself, after it has named the tenant.
        """
        if isinstance(self._given, AsyncEngine):
            with database_errors("use the session's database"):
                async with engine_sessions(self._given)() as db:
                    if not reads_only:
                        await read_committed(db)
                    yield db
                    await db.commit()
            return
        database = self._given or get_database()
        async with database.session(read_committed=not reads_only) as db:
            yield db

    async def writer(self) -> SessionWriter:
        """Return the running loop's writer, opened."""
        return await self._writers.get().writer()

    async def close(self) -> None:
        """Wait for appends that were begun, and let the writers go; a later use opens new ones."""
        await self._writers.aclose()


class _Opened:
    """A writer that is opened by whoever needs it first, on one event loop."""

    def __init__(self, engine: Any) -> None:
        self._writer = SessionWriter(engine)
        self._opening: asyncio.Task[SessionWriter] | None = None
        self._opened: SessionWriter | None = None

    async def writer(self) -> SessionWriter:
        if self._opened is not None:
            return self._opened
        if self._opening is None or _failed(self._opening):
            self._opening = asyncio.create_task(self._writer.__aenter__())
            self._opening.add_done_callback(_failed)  # marks an error as seen whose callers have left
        self._opened = opened = await asyncio.shield(self._opening)
        return opened

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await self._writer.close()


def _failed(opening: "asyncio.Task[SessionWriter]") -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)
