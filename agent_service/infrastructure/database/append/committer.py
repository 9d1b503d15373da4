"""Committing batches: one transaction each, on connections beside the engine's pool.

Callers that hold the whole pool while they wait for an append would otherwise wait for ever.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import Clock
from agent_service.infrastructure.database.append.batch import Batch, Place
from agent_service.infrastructure.database.append.direct_postgres import DirectPostgres
from agent_service.infrastructure.database.append.direct_sqlite import DirectSqlite
from agent_service.infrastructure.database.append.statements import append_many
from agent_service.infrastructure.database.append.work import Work
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.sqlite.cancelled import keep_clean
from agent_service.infrastructure.database.sqlite.file import in_memory
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.transactions.tenants import say_tenant_on_begin, says_tenant, tenant_engine

__all__ = ["Committer", "open_committers"]

A = TypeVar("A")
T = TypeVar("T")

LANES: Final = 4
"""Connections to PostgreSQL, each for one tenant at a time. They are opened as more tenants write at the same time."""


class Committer(Protocol):
    """Commits batches, one at a time, for one task."""

    @property
    def behind(self) -> bool:
        """Whether there is work to :meth:`catch_up` with when there is nothing to append."""

    async def append(self, batch: Batch) -> Sequence[Place | None]:
        """Append and commit. None: the message's session is not there, or its key was appended before.

        Any exception is about the batch as a whole, and the connection is not used again.
        """

    async def commit(self, tenant_id: str, work: Work) -> None:
        """Do some work for a tenant and commit it.

        Any exception is about the work as a whole, and the connection is not used again.
        """

    async def read(self, query: Callable[[Connection, str, A], T], tenant_id: str, argument: A) -> T:
        """Call a function that reads rows of a tenant: with a SQLAlchemy connection, the tenant and the argument."""

    async def catch_up(self) -> None:
        """Do a small part of the work that appending left."""

    async def close(self) -> None:
        """Close the connection."""


def open_committers(engine: AsyncEngine, clock: Clock) -> list[Committer]:
    """Return the fastest committers that an engine allows, one for each lane; nothing is connected yet.

    SQLite has one lane, because it has one write lock.
    """
    if engine.dialect.name == "sqlite":
        keep_clean(engine.sync_engine)
        # A database in memory lives in the engine's one connection.
        alone = in_memory(engine.url.database, engine.url.query)
        return [_InTransactions(engine, own=False) if alone else DirectSqlite(engine)]
    return [_on_postgres(engine, clock) for _ in range(LANES)]


def _on_postgres(engine: AsyncEngine, clock: Clock) -> Committer:
    pool = engine.sync_engine.pool.recreate()
    twin = AsyncEngine(Engine(pool, engine.dialect, engine.url, hide_parameters=True))
    naming_of(twin.sync_engine)
    if says_tenant(engine):
        say_tenant_on_begin(twin)
        return _InTransactions(twin.execution_options(isolation_level=LEVEL), own=True)
    return DirectPostgres(twin, clock)


class _InTransactions:
    """Commits by transactions of SQLAlchemy: for a database in memory, and where transactions say their tenant.

    :param own: whether the engine belongs to this object, which closes it then.
    """

    behind = False

    def __init__(self, engine: AsyncEngine, *, own: bool) -> None:
        self._engine = engine
        self._own = own

    async def append(self, batch: Batch) -> Sequence[Place | None]:
        return await self._transact(batch.tenant_id, lambda connection: append_many(connection, batch))

    async def commit(self, tenant_id: str, work: Work) -> None:
        await self._transact(tenant_id, work.within)

    async def read(self, query: Callable[[Connection, str, A], T], tenant_id: str, argument: A) -> T:
        return await self._transact(tenant_id, lambda connection: query(connection, tenant_id, argument))

    async def _transact(self, tenant_id: str, work: Callable[[Connection], T]) -> T:
        async with AsyncExitStack() as stack:
            with database_errors("connect"):  # As our error it says that nothing was sent.
                connection = await stack.enter_async_context(tenant_engine(self._engine, tenant_id).connect())
            async with connection.begin():
                return await connection.run_sync(work)

    async def catch_up(self) -> None:
        """Do nothing: nothing is put off."""

    async def close(self) -> None:
        if self._own:
            await self._engine.dispose()
