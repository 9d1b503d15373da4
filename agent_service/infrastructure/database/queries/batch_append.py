"""Appending many messages at once, to one session or to many: their numbers are taken together.

On PostgreSQL it is one statement, which may be a transaction of its own: it locks the sessions' rows in the order of
their ids, so that batches of several processes wait for one another and never in a circle; leaves out what was
appended before under the same client id; and gives the rest consecutive numbers in the order they were given. It looks
for client ids before it waits for the rows, so a message that another transaction appends at the same moment under the
same id makes it fail as a whole, on the unique index. Repeating it finds that message. Callers that cannot repeat lock
the rows by a statement before. On SQLite the write lock is taken first and the same is done step by step behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import Connection, bindparam, false, func, insert, select, tuple_, update
from sqlalchemy.orm import class_mapper

from agent_service.infrastructure.database.incoming import IncomingMessage
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.driver import fetch_rows
from agent_service.infrastructure.database.queries.scope import visible
from agent_service.infrastructure.database.types import UtcDateTime

__all__ = ["BatchAppend", "Entry", "Key", "Place", "append_batch", "find_earlier", "find_sessions"]

Key: TypeAlias = tuple[UUID, str]
"""What makes a second append of the same message a repetition: its session and its client id."""

_CHUNK = 500
"""Keys in one IN list: drivers and engines limit what a statement may hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a batch, and where it belongs."""

    session_id: UUID
    message: IncomingMessage
    client_id: str | None = None

    @property
    def key(self) -> Key | None:
        """The message's identity, if it was given one."""
        return None if self.client_id is None else (self.session_id, self.client_id)

    def stored(self, seq: int, now: datetime) -> SessionMessage:
        """Give the message that is stored for it."""
        message = self.message
        return SessionMessage.stored(
            session_id=self.session_id,
            seq=seq,
            client_id=self.client_id,
            role=message.role,
            search_text=message.search_text,
            data=message.data,
            token_count=message.token_count,
            created_at=now,
        )


@dataclass(frozen=True, slots=True)
class BatchAppend:
    """What is to be appended in one transaction. No two entries have the same key."""

    tenant_id: str
    entries: Sequence[Entry]
    now: datetime
    expires_at: datetime


class Place(NamedTuple):
    """The number an entry got, and how many messages its session holds after the whole batch."""

    seq: int
    total_messages: int


def append_batch(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    """Append in the connection's transaction. None: the entry's session is not there, or its key was appended before.

    :raises IntegrityError: on PostgreSQL, see above; the transaction is of no use then.
    """
    places: list[Place | None] = [None] * len(batch.entries)
    fill = _append_postgres if connection.dialect.name == "postgresql" else _append_sqlite
    for index, place in fill(connection, batch):
        places[index] = place
    return places


def find_earlier(connection: Connection, tenant_id: str, keys: Iterable[Key]) -> dict[Key, SessionMessage]:
    """Give the messages of visible sessions that were appended under these keys."""
    columns = SessionMessage.__table__.c
    found: dict[Key, SessionMessage] = {}
    for chunk in _chunks(keys):
        statement = (
            select(*(columns[name].label(attribute) for name, attribute in _ATTRIBUTES.items()))
            .join(Session.__table__, Session.id == SessionMessage.session_id)
            .where(tuple_(columns.session_id, columns.client_id).in_(chunk), *visible(tenant_id))
        )
        for row in connection.execute(statement).mappings():
            found[row["session_id"], row["client_id"]] = SessionMessage.stored(**row)
    return found


def find_sessions(connection: Connection, tenant_id: str, session_ids: Iterable[UUID]) -> set[UUID]:
    """Give those of the sessions that are visible."""
    found: set[UUID] = set()
    for chunk in _chunks(set(session_ids)):
        found.update(connection.scalars(select(Session.id).where(Session.id.in_(chunk), *visible(tenant_id))))
    return found


_ATTRIBUTES = {attribute.columns[0].name: attribute.key for attribute in class_mapper(SessionMessage).column_attrs}


_APPEND_POSTGRES = """
WITH given AS (
    SELECT * FROM unnest($4::uuid[], $5::varchar[], $6::text[], $7::text[], $8::json[], $9::int[])
        WITH ORDINALITY AS given (session_id, client_id, role, content, data, token_count, place)
), locked AS (
    SELECT id FROM sessions WHERE id = ANY ($4::uuid[]) AND tenant_id = $1::varchar AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), fresh AS (
    SELECT given.*, row_number() OVER (PARTITION BY session_id ORDER BY place) AS nth
    FROM given JOIN locked ON locked.id = given.session_id
    WHERE given.client_id IS NULL OR NOT EXISTS (
        SELECT FROM session_messages AS earlier
        WHERE earlier.session_id = given.session_id AND earlier.client_id = given.client_id
    )
), counted AS (
    SELECT session_id, count(*) AS messages, coalesce(sum(token_count), 0) AS tokens FROM fresh GROUP BY session_id
), taken AS (
    UPDATE sessions SET
        last_seq = last_seq + messages,
        total_messages = total_messages + messages,
        total_tokens = total_tokens + tokens,
        last_activity_at = greatest(last_activity_at, $2::timestamptz),
        updated_at = greatest(updated_at, $2::timestamptz),
        expires_at = greatest(expires_at, $3::timestamptz)
    FROM counted WHERE id = session_id
    RETURNING id, last_seq - messages AS base, total_messages
), added AS (
    INSERT INTO session_messages (session_id, seq, client_id, role, content, data, token_count, created_at)
    SELECT session_id, base + nth, client_id, role, content, data, token_count, $2::timestamptz
    FROM fresh JOIN taken ON taken.id = fresh.session_id
)
SELECT place - 1, base + nth, total_messages FROM fresh JOIN taken ON taken.id = fresh.session_id
"""


def _append_postgres(connection: Connection, batch: BatchAppend) -> Iterable[tuple[int, Place]]:
    messages = [entry.message for entry in batch.entries]
    rows = fetch_rows(
        connection,
        _APPEND_POSTGRES,
        (
            batch.tenant_id,
            batch.now,
            batch.expires_at,
            [entry.session_id for entry in batch.entries],
            [entry.client_id for entry in batch.entries],
            [message.role for message in messages],
            [message.search_text for message in messages],
            [message.text for message in messages],
            [message.token_count for message in messages],
        ),
    )
    return ((index, Place(seq, total)) for index, seq, total in rows)


_LOCK_SQLITE = update(Session).where(false()).values(last_seq=Session.last_seq)
_TAKE_SQLITE = (
    update(Session.__table__)  # type: ignore[arg-type]
    .where(Session.id == bindparam("given_session"))
    .values(
        last_seq=Session.last_seq + bindparam("messages"),
        total_messages=Session.total_messages + bindparam("messages"),
        total_tokens=Session.total_tokens + bindparam("tokens"),
        last_activity_at=func.max(Session.last_activity_at, bindparam("now", type_=UtcDateTime)),
        updated_at=func.max(Session.updated_at, bindparam("now", type_=UtcDateTime)),
        expires_at=func.max(Session.expires_at, bindparam("until", type_=UtcDateTime)),
    )
)
_ADD_SQLITE = insert(SessionMessage.__table__)  # type: ignore[arg-type]


def _append_sqlite(connection: Connection, batch: BatchAppend) -> Iterable[tuple[int, Place]]:
    connection.execute(_LOCK_SQLITE)
    counters = _counters(connection, batch)
    known = _known_keys(connection, batch)
    placed: list[tuple[int, int]] = []
    rows: list[dict[str, Any]] = []
    for index, entry in enumerate(batch.entries):
        counter = counters.get(entry.session_id)
        if counter is None or entry.key in known:
            continue
        counter.add(entry.message)
        placed.append((index, counter.seq))
        rows.append(_row(entry, counter.seq, batch.now))
    changed = [counter for counter in counters.values() if counter.messages]
    if not changed:
        return ()
    moments = {"now": batch.now, "until": batch.expires_at}
    connection.execute(_TAKE_SQLITE, [counter.change() | moments for counter in changed])
    connection.execute(_ADD_SQLITE, rows)
    totals = {index: counters[batch.entries[index].session_id].total for index, _ in placed}
    return ((index, Place(seq, totals[index])) for index, seq in placed)


@dataclass(slots=True)
class _Counter:
    """A session's numbers while a batch is counted into them."""

    session_id: UUID
    seq: int
    total: int
    messages: int = 0
    tokens: int = 0

    def add(self, message: IncomingMessage) -> None:
        self.seq += 1
        self.total += 1
        self.messages += 1
        self.tokens += message.token_count or 0

    def change(self) -> dict[str, Any]:
        return {"given_session": self.session_id, "messages": self.messages, "tokens": self.tokens}


def _counters(connection: Connection, batch: BatchAppend) -> dict[UUID, _Counter]:
    columns = (Session.id, Session.last_seq, Session.total_messages)
    found: dict[UUID, _Counter] = {}
    for ids in _chunks({entry.session_id for entry in batch.entries}):
        statement = select(*columns).where(Session.id.in_(ids), *visible(batch.tenant_id))
        found.update((row[0], _Counter(*row)) for row in connection.execute(statement))
    return found


def _known_keys(connection: Connection, batch: BatchAppend) -> set[Any]:
    columns = (SessionMessage.session_id, SessionMessage.client_id)
    known: set[Any] = {()}
    for keys in _chunks({entry.key for entry in batch.entries} - {None}):
        known.update(tuple(row) for row in connection.execute(select(*columns).where(tuple_(*columns).in_(keys))))
    return known


def _row(entry: Entry, seq: int, now: datetime) -> dict[str, Any]:
    message = entry.message
    return {
        "session_id": entry.session_id,
        "seq": seq,
        "client_id": entry.client_id,
        "role": message.role,
        "content": message.search_text,
        "data": message.data,
        "token_count": message.token_count,
        "created_at": now,
    }


def _chunks(keys: Iterable[Any]) -> Iterable[list[Any]]:
    listed = list(keys)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
