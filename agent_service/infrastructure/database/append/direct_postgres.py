"""Committing batches by asyncpg itself: each is one statement, a transaction by itself, and one round trip.

The connection is beside the engine's pool (see ``committer.py``). SQLAlchemy opens, replaces and closes it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from agent_service.core.clock import Clock
from agent_service.infrastructure.database.append.batch import Batch, Place
from agent_service.infrastructure.database.append.few_postgres import few_for
from agent_service.infrastructure.database.append.postgres import places_of, statement_for
from agent_service.infrastructure.database.append.work import Work
from agent_service.infrastructure.database.errors.lost import is_lost
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.transactions.isolation import LEVEL

__all__ = ["DirectPostgres"]

A = TypeVar("A")
T = TypeVar("T")

_LEVEL: Final = text("SELECT current_setting('default_transaction_isolation')")
"""Connections of our own engines set it when they are opened. Behind pgbouncer, and on an engine of the caller's own,
it may differ; then a batch takes a transaction around its statement."""
_HELD: Final = 10.0
"""Seconds after which the connection returns to its pool once, which replaces it when it is too old."""


class DirectPostgres:
    """Commits through one connection, for one task at a time; after an error it takes another.

    :param engine: one of its own, which it closes.
    """

    behind = False

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._clock = clock
        self._held: AsyncConnection | None = None
        self._driver: Any = None
        self._names: Any = None
        self._read_committed = True
        self._held_until = 0.0

    async def append(self, batch: Batch) -> list[Place | None]:
        """Append and commit.

        :raises DBAPIError: the database refused it, or the connection was lost.
        :raises TimeoutError: the database did not answer in time.
        """
        few = few_for(batch)
        rows: Sequence[Sequence[Any]] = () if few is None else await self._fetch(*few)
        return places_of(batch, rows or await self._fetch(*statement_for(batch)))

    async def commit(self, tenant_id: str, work: Work) -> None:
        """Do some work and commit it, with the errors of :meth:`append`.

        :param tenant_id: whose rows they are; only transactions that say it need to know.
        """
        del tenant_id
        await self._fetch(*work.statement())

    async def _fetch(self, statement: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        await self._connect()
        statement = self._names.render(statement)
        try:
            rows: Sequence[Sequence[Any]]
            if self._read_committed:
                rows = await self._driver.fetch(statement, *parameters)
            else:
                async with self._driver.transaction(isolation="read_committed"):
                    rows = await self._driver.fetch(statement, *parameters)
        except (asyncio.CancelledError, TimeoutError):
            await self._release(invalid=True)
            raise
        except Exception as exc:
            # An event loop has errors of its own for a transport that was closed.
            lost = self._driver.is_closed() or is_lost(exc)
            await self._release(invalid=lost or not isinstance(exc, asyncpg.PostgresError))
            raise DBAPIError(statement, None, exc, hide_parameters=True, connection_invalidated=lost) from exc
        return rows

    async def read(self, query: Callable[[Connection, str, A], T], tenant_id: str, argument: A) -> T:
        """Call a function that reads rows of a tenant."""
        await self._release()  # To take the same one again.
        async with self._engine.connect() as connection:
            return await connection.run_sync(query, tenant_id, argument)

    async def catch_up(self) -> None:
        """Do nothing: PostgreSQL keeps its indexes itself."""

    async def close(self) -> None:
        """Close the connections."""
        await self._release()
        await self._engine.dispose()

    async def _connect(self) -> None:
        now = self._clock.monotonic()
        if self._held is not None and (now >= self._held_until or self._driver.is_closed()):
            await self._release()
        if self._held is None:
            with database_errors("connect"):  # As our error it says that nothing was sent.
                self._held = await self._engine.connect()
                self._names = await self._held.run_sync(names_of)
                self._read_committed = await self._held.scalar(_LEVEL) == LEVEL.lower()
            self._driver = (await self._held.get_raw_connection()).driver_connection
            self._held_until = now + _HELD

    async def _release(self, *, invalid: bool = False) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            if invalid:
                await held.invalidate()
            await held.close()
