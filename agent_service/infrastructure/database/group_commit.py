"""Committing a batch of messages: one transaction, on a connection that nobody else waits for."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import Clock
from agent_service.core.errors import SessionConflictError, SessionError
from agent_service.infrastructure.database.direct import DirectConnection
from agent_service.infrastructure.database.errors import session_not_found
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.queries.append import Append, append
from agent_service.infrastructure.database.queries.batch import BatchAppend, Entry, Key, Place
from agent_service.infrastructure.database.queries.batch_append import append_batch, find_earlier, find_sessions
from agent_service.infrastructure.database.queries.batch_append_postgres import places_of, statement_for
from agent_service.infrastructure.database.row_security import say_tenant_on_begin, says_tenant, tenant_engine

__all__ = ["Answer", "GroupCommit"]

_HELD: Final = 10.0
"""Seconds after which the connection passes through its pool again, which replaces what has grown too old."""


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

    def __init__(self, engine: AsyncEngine, tenant_id: str, clock: Clock) -> None:
        self._embedded = engine.dialect.name == "sqlite"
        self._in_transaction = self._embedded or says_tenant(engine)
        self._engine = engine if self._embedded else _beside(engine, tenant_id)
        self._clock = clock
        self._held: DirectConnection | None = None
        self._held_until = 0.0

    async def commit(self, batch: BatchAppend) -> list[Answer]:
        """Append, commit, and only then answer; one answer for each entry.

        An exception of SQLAlchemy or the driver is about the batch as a whole, and its connection is not used again.
        """
        if self._in_transaction:
            async with self._engine.begin() as transaction:
                return await transaction.run_sync(_append, batch)
        connection = await self._connection()
        try:
            places = places_of(batch, await connection.fetch(*statement_for(batch)))
            left = _left(batch, places)
            explained = await connection.read(_explain, batch.tenant_id, left) if left else _Explained(batch.tenant_id)
        except BaseException:
            await self._release()
            raise
        return _answers(batch, places, explained)

    async def _connection(self) -> DirectConnection:
        now = self._clock.monotonic()
        if self._held is not None and (now >= self._held_until or not self._held.is_open):
            await self._release()
        if self._held is None:
            self._held, self._held_until = await DirectConnection.take(self._engine), now + _HELD
        return self._held

    async def _release(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            await held.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._release()
        if not self._embedded:
            await self._engine.dispose()


def _beside(engine: AsyncEngine, tenant_id: str) -> AsyncEngine:
    pool = engine.sync_engine.pool.recreate()
    twin = AsyncEngine(Engine(pool, engine.dialect, engine.url, hide_parameters=True))
    if says_tenant(engine):
        say_tenant_on_begin(twin)
        return tenant_engine(twin, tenant_id)
    return twin.execution_options(isolation_level="AUTOCOMMIT")


def _append(connection: Connection, batch: BatchAppend) -> list[Answer]:
    places = _places(connection, batch)
    return _answers(batch, places, _explain(connection, batch.tenant_id, _left(batch, places)))


def _places(connection: Connection, batch: BatchAppend) -> Sequence[Place | None]:
    if len(batch.entries) > 1:
        return append_batch(connection, batch)
    (entry,) = batch.entries
    counters = append(
        connection,
        Append(batch.tenant_id, entry.session_id, entry.message, batch.now, batch.expires_at, entry.client_id),
    )
    return [None if counters is None else Place(counters.last_seq, counters.total_messages)]


def _left(batch: BatchAppend, places: Sequence[Place | None]) -> list[Entry]:
    return [entry for entry, place in zip(batch.entries, places, strict=True) if place is None]


def _explain(connection: Connection, tenant_id: str, left: list[Entry]) -> "_Explained":
    earlier = find_earlier(connection, tenant_id, [entry.key for entry in left if entry.key])
    return _Explained(tenant_id, earlier, find_sessions(connection, tenant_id, [entry.session_id for entry in left]))


def _answers(batch: BatchAppend, places: Sequence[Place | None], explained: "_Explained") -> list[Answer]:
    return [
        explained.answer(entry) if place is None else Answer(entry.stored(place.seq, batch.now), place.total_messages)
        for entry, place in zip(batch.entries, places, strict=True)
    ]


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
