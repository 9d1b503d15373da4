"""Appending many messages at once, to one session or to many: their numbers are taken together.

On PostgreSQL it is one statement, which may be a transaction of its own: it locks the sessions' rows in the order of
their ids, so that batches of several processes wait for one another and never in a circle; leaves out what was
appended before under the same client id; and gives the rest consecutive numbers in the order they were given. It looks
for client ids before it waits for the rows, so a message that another transaction appends at the same moment under the
same id makes it fail as a whole, on the unique index. Repeating it finds that message. Callers that cannot repeat lock
the rows by a statement before.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, tuple_
from sqlalchemy.orm import class_mapper

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.batch import BatchAppend, Key, Place
from agent_service.infrastructure.database.queries.batch_append_sqlite import append_sqlite
from agent_service.infrastructure.database.queries.driver import fetch_rows
from agent_service.infrastructure.database.queries.scope import visible

__all__ = ["append_batch", "find_earlier", "find_sessions"]

_CHUNK = 500
"""Keys in one IN list: drivers and engines limit what a statement may hold."""


def append_batch(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    """Append in the connection's transaction. None: the entry's session is not there, or its key was appended before.

    :raises IntegrityError: on PostgreSQL, see above; the transaction is of no use then.
    """
    places: list[Place | None] = [None] * len(batch.entries)
    fill = _append_postgres if connection.dialect.name == "postgresql" else append_sqlite
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


def _chunks(keys: Iterable[Any]) -> Iterable[list[Any]]:
    listed = list(keys)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
