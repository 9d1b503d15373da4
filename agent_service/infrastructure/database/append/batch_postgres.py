"""Appending many messages at once on PostgreSQL: one statement, which may be a transaction by itself.

It locks the sessions' rows in the order of their ids, so that batches of several processes wait for one another and
never in a circle; leaves out what was appended before under the same client id; and gives the rest consecutive numbers
in the order they were given. It looks for client ids before it waits for the rows, so a message that another
transaction appends at the same moment under the same id makes it fail as a whole, on the unique index. Repeating it
finds that message. Callers that cannot repeat lock the rows by a statement before.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection

from agent_service.infrastructure.database.append.batch import BatchAppend, Place
from agent_service.infrastructure.database.append.statement import (
    APPEND_ALONE_POSTGRES,
    Append,
    parameters_for_postgres,
)
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.driver import fetch_rows

__all__ = ["append_postgres", "places_of", "statement_for"]

Statement: TypeAlias = tuple[str, tuple[Any, ...]]

_APPEND_MANY = """
WITH given AS (
    SELECT * FROM unnest($4::uuid[], $5::varchar[], $6::text[], $7::text[], $8::json[], $9::int[])
        WITH ORDINALITY AS given (session_id, client_id, role, content, data, token_count, place)
), locked AS (
    SELECT id FROM agent_service_sessions WHERE tenant_id = $1::varchar AND id = ANY ($4::uuid[]) AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), fresh AS (
    SELECT given.*, row_number() OVER (PARTITION BY session_id ORDER BY place) AS nth
    FROM given JOIN locked ON locked.id = given.session_id
    WHERE given.client_id IS NULL OR NOT EXISTS (
        SELECT FROM agent_service_session_messages AS earlier
        WHERE earlier.tenant_id = $1::varchar AND earlier.session_id = given.session_id
            AND earlier.client_id = given.client_id
    )
), counted AS (
    SELECT session_id, count(*) AS messages, coalesce(sum(token_count), 0) AS tokens FROM fresh GROUP BY session_id
), taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + messages,
        total_messages = total_messages + messages,
        total_tokens = total_tokens + tokens,
        last_activity_at = greatest(last_activity_at, $2::timestamptz),
        updated_at = greatest(updated_at, $2::timestamptz),
        expires_at = greatest(expires_at, $3::timestamptz)
    FROM counted WHERE tenant_id = $1::varchar AND id = session_id
    RETURNING id, last_seq - messages AS base, total_messages
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
    SELECT session_id, base + nth, client_id, role, content, data, token_count, $2::timestamptz, $1::varchar
    FROM fresh JOIN taken ON taken.id = fresh.session_id
)
SELECT place - 1, base + nth, total_messages FROM fresh JOIN taken ON taken.id = fresh.session_id
"""


def append_postgres(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    """Append in the connection's transaction; None for each entry that was not added."""
    statement, parameters = _many(batch)
    return places_of(batch, fetch_rows(connection, names_of(connection).render(statement), parameters))


def statement_for(batch: BatchAppend) -> Statement:
    """Return the statement, with its parameters, that appends the batch as a transaction by itself.

    A single message has one of its own: the general one is planned each time, which costs as much as the append.
    """
    if len(batch.entries) > 1:
        return _many(batch)
    (entry,) = batch.entries
    order = Append(batch.tenant_id, entry.session_id, entry.message, batch.now, batch.expires_at, entry.client_id)
    return APPEND_ALONE_POSTGRES, parameters_for_postgres(order)


def places_of(batch: BatchAppend, rows: Iterable[Sequence[Any]]) -> list[Place | None]:
    """Read the statement's answer: a place for each entry that was added."""
    places: list[Place | None] = [None] * len(batch.entries)
    for index, seq, total in rows:
        places[index] = Place(seq, total)
    return places


def _many(batch: BatchAppend) -> Statement:
    messages = [entry.message for entry in batch.entries]
    return _APPEND_MANY, (
        batch.tenant_id,
        batch.now,
        batch.expires_at,
        [entry.session_id for entry in batch.entries],
        [entry.client_id for entry in batch.entries],
        [message.role for message in messages],
        [message.search_text for message in messages],
        [message.text for message in messages],
        [message.token_count for message in messages],
    )
