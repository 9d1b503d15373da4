"""Committing a batch of messages: one transaction, on a connection that nobody else waits for."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from agent_service.core.errors import SessionConflictError, SessionError
from agent_service.infrastructure.database.errors import session_not_found
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.queries.append import Append, append
from agent_service.infrastructure.database.queries.batch import BatchAppend, Entry, Place
from agent_service.infrastructure.database.queries.batch_append import append_batch, find_earlier, find_sessions
from agent_service.infrastructure.database.row_security import say_tenant_on_begin, says_tenant, tenant_engine

__all__ = ["Answer", "GroupCommit"]


class Answer(NamedTuple):
    """What an entry's caller is to hear; and how many messages its session holds now, if the entry was added."""

    result: SessionMessage | SessionError
    total_messages: int = 0


class GroupCommit:
    """Commits batches, one at a time.

    On PostgreSQL the connection is not one of the engine's pool but made in the same way beside it: callers that keep
    the whole pool busy while they wait for a commit do not wait for ever. A batch is one statement without a
    transaction around it, so it costs one round trip; with row-level security there is one, to say the tenant in. On
    SQLite the engine's connections share the one write lock.
    """

    def __init__(self, engine: AsyncEngine, tenant_id: str) -> None:
        self._embedded = engine.dialect.name == "sqlite"
        self._in_transaction = self._embedded or says_tenant(engine)
        self._engine = engine if self._embedded else _beside(engine, tenant_id)
        self._kept: AsyncConnection | None = None

    async def commit(self, batch: BatchAppend) -> list[Answer]:
        """Append, commit, and only then answer; one answer for each entry.

        An exception of SQLAlchemy or the driver is about the batch as a whole, and its connection is not used again.
        """
        if self._in_transaction:
            async with self._engine.begin() as connection:
                return await connection.run_sync(_append_all, batch)
        if self._kept is None:
            self._kept = await self._engine.connect()
        try:
            return await self._kept.run_sync(_append_all, batch)
        except BaseException:
            await self.release()
            raise

    async def release(self) -> None:
        """Give the connection back while there is nothing to do."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.close()

    async def close(self) -> None:
        """Close the connection."""
        await self.release()
        if not self._embedded:
            await self._engine.dispose()


def _beside(engine: AsyncEngine, tenant_id: str) -> AsyncEngine:
    pool = engine.sync_engine.pool.recreate()
    twin = AsyncEngine(Engine(pool, engine.dialect, engine.url, hide_parameters=True))
    if says_tenant(engine):
        say_tenant_on_begin(twin)
        return tenant_engine(twin, tenant_id)
    return twin.execution_options(isolation_level="AUTOCOMMIT")


def _append_all(connection: Connection, batch: BatchAppend) -> list[Answer]:
    if connection.dialect.name == "postgresql" and not connection.in_transaction():
        _require_open(connection)
    places = _places(connection, batch)
    placed = list(zip(batch.entries, places, strict=True))
    explained = _Explained(connection, batch.tenant_id, [entry for entry, place in placed if place is None])
    return [
        explained.answer(entry) if place is None else Answer(entry.stored(place.seq, batch.now), place.total_messages)
        for entry, place in placed
    ]


def _require_open(connection: Connection) -> None:
    """Replace a connection that was lost while it was idle, before anything is sent."""
    driver: Any = connection.connection.driver_connection
    if driver.is_closed():
        connection.invalidate()


def _places(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    if len(batch.entries) > 1 or connection.dialect.name == "postgresql":
        return append_batch(connection, batch)
    (entry,) = batch.entries
    counters = append(
        connection,
        Append(batch.tenant_id, entry.session_id, entry.message, batch.now, batch.expires_at, entry.client_id),
    )
    return [None if counters is None else Place(counters.last_seq, counters.total_messages)]


class _Explained:
    """Why entries were not added: appended before, or no such session."""

    def __init__(self, connection: Connection, tenant_id: str, left: list[Entry]) -> None:
        self._tenant_id = tenant_id
        self._earlier = find_earlier(connection, tenant_id, [entry.key for entry in left if entry.key])
        self._sessions = find_sessions(connection, tenant_id, [entry.session_id for entry in left])

    def answer(self, entry: Entry) -> Answer:
        if entry.key in self._earlier:
            return Answer(self._earlier[entry.key])
        if entry.session_id not in self._sessions:
            return Answer(session_not_found(entry.session_id, self._tenant_id))
        return Answer(
            SessionConflictError(
                f"session {entry.session_id} changed while the message was appended, and it was not; append it again"
            )
        )
