"""Committing a batch of messages: one transaction, on a connection that nobody else waits for."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import Clock
from agent_service.core.errors import SessionConflictError, SessionError
from agent_service.infrastructure.database.append.batch import BatchAppend, Entry, Key, Place
from agent_service.infrastructure.database.append.batch_statement import append_batch, find_earlier, find_sessions
from agent_service.infrastructure.database.append.direct_postgres import DirectPostgres
from agent_service.infrastructure.database.append.direct_sqlite import DirectSqlite
from agent_service.infrastructure.database.errors.sessions import session_not_found
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.sqlite.cancelled import keep_clean
from agent_service.infrastructure.database.sqlite.file import in_memory
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.transactions.tenants import say_tenant_on_begin, says_tenant, tenant_engine

__all__ = ["Answer", "GroupCommit"]

P = ParamSpec("P")
T = TypeVar("T")


class Answer(NamedTuple):
    """What an entry's caller is to hear; and how many messages its session holds now, if the entry was added."""

    result: SessionMessage | SessionError
    total_messages: int = 0


class _Way(Protocol):
    """How a batch is brought to the database."""

    @property
    def behind(self) -> bool:
        """Whether there is work to catch up with when there is nothing to append."""

    async def append(self, batch: BatchAppend) -> Sequence[Place | None]:
        """Append and commit. None: the entry's session is not there, or its key was appended before.

        Any exception is about the batch as a whole, and the connection is not used again.
        """

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that reads with a SQLAlchemy connection."""

    async def catch_up(self) -> None:
        """Do a small part of that work."""

    async def close(self) -> None:
        """Let go of the database."""


class GroupCommit:
    """Commits batches, one at a time."""

    def __init__(self, engine: AsyncEngine, tenant_id: str, clock: Clock) -> None:
        self._tenant_id = tenant_id
        self._way = _way(engine, tenant_id, clock)

    @property
    def behind(self) -> bool:
        """Whether there is work to :meth:`catch_up` with when there is nothing to append."""
        return self._way.behind

    async def commit(self, batch: BatchAppend) -> list[Answer]:
        """Append, commit, and only then answer; one answer for each entry.

        :raises Exception: one of SQLAlchemy, the driver or ours, about the batch as a whole.
        """
        places = await self._way.append(batch)
        placed = list(zip(batch.entries, places, strict=True))
        left = [entry for entry, place in placed if place is None]
        explained = await self._way.read(_explain, self._tenant_id, left) if left else _Explained(self._tenant_id)
        return [
            explained.answer(entry) if place is None else Answer(batch.stored(entry, place.seq), place.total_messages)
            for entry, place in placed
        ]

    async def catch_up(self) -> None:
        """Do a small part of the work that appending left."""
        await self._way.catch_up()

    async def close(self) -> None:
        """Let go of the database."""
        await self._way.close()


class _InTransactions:
    """Commits by transactions of SQLAlchemy's.

    :param own: whether the engine is this object's own, to close.
    """

    behind = False

    def __init__(self, engine: AsyncEngine, *, own: bool) -> None:
        self._engine = engine
        self._own = own

    async def append(self, batch: BatchAppend) -> Sequence[Place | None]:
        return await self.read(append_batch, batch)

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


def _way(engine: AsyncEngine, tenant_id: str, clock: Clock) -> _Way:
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


def _explain(connection: Connection, tenant_id: str, left: list[Entry]) -> "_Explained":
    earlier = find_earlier(connection, tenant_id, [entry.key for entry in left if entry.key])
    return _Explained(tenant_id, earlier, find_sessions(connection, tenant_id, [entry.session_id for entry in left]))


class _Explained:
    """Why entries were not added: appended before, or no such session."""

    def __init__(
        self, tenant_id: str, earlier: Mapping[Key, SessionMessage] | None = None, sessions: Collection[UUID] = ()
    ) -> None:
        self._tenant_id = tenant_id
        self._earlier = earlier or {}
        self._sessions = sessions

    def answer(self, entry: Entry) -> Answer:
        if entry.key is not None and entry.key in self._earlier:
            return Answer(self._earlier[entry.key])
        if entry.session_id not in self._sessions:
            return Answer(session_not_found(entry.session_id, self._tenant_id))
        return Answer(
            SessionConflictError(
                f"session {entry.session_id} changed while the message was appended, and it was not; append it again"
            )
        )
