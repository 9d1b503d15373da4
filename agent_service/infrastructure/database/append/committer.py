"""Committing batches: one transaction each, on a connection beside the engine's pool.

Callers that hold the whole pool while they wait for an append would otherwise wait for ever.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import Clock
from agent_service.infrastructure.database.append.batch import Batch, Place
from agent_service.infrastructure.database.append.direct_postgres import DirectPostgres
from agent_service.infrastructure.database.append.direct_sqlite import DirectSqlite
from agent_service.infrastructure.database.append.statements import append_many
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.sqlite.cancelled import keep_clean
from agent_service.infrastructure.database.sqlite.file import in_memory
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.transactions.tenants import say_tenant_on_begin, says_tenant, tenant_engine

__all__ = ["Committer", "open_committer"]

P = ParamSpec("P")
T = TypeVar("T")


class Committer(Protocol):
    """Commits batches, one at a time, for one task."""

    @property
    def behind(self) -> bool:
        """Whether there is work to :meth:`catch_up` with when there is nothing to append."""

    async def append(self, batch: Batch) -> Sequence[Place | None]:
        """Append and commit. None: the message's session is not there, or its key was appended before.

        Any exception is about the batch as a whole, and the connection is not used again.
        """

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads with a SQLAlchemy connection."""

    async def catch_up(self) -> None:
        """Do a small part of the work that appending left."""

    async def close(self) -> None:
        """Close the connection."""


def open_committer(engine: AsyncEngine, tenant_id: str, clock: Clock) -> Committer:
    """Return the fastest committer that an engine allows; nothing is connected yet."""
    if engine.dialect.name == "sqlite":
        keep_clean(engine.sync_engine)
        # A database in memory lives in the engine's one connection.
        alone = in_memory(engine.url.database, engine.url.query)
        return _InTransactions(engine, own=False) if alone else DirectSqlite(engine)
    pool = engine.sync_engine.pool.recreate()
    twin = AsyncEngine(Engine(pool, engine.dialect, engine.url, hide_parameters=True))
    naming_of(twin.sync_engine)
    if says_tenant(engine):
        say_tenant_on_begin(twin)
        committed = twin.execution_options(isolation_level=LEVEL)
        return _InTransactions(tenant_engine(committed, tenant_id), own=True)
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
        return await self.read(append_many, batch)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with AsyncExitStack() as stack:
            with database_errors("connect"):  # As our error it says that nothing was sent.
                connection = await stack.enter_async_context(self._engine.connect())
            async with connection.begin():
                return await connection.run_sync(query, *args, **kwargs)

    async def catch_up(self) -> None:
        """Do nothing: nothing is put off."""

    async def close(self) -> None:
        if self._own:
            await self._engine.dispose()
