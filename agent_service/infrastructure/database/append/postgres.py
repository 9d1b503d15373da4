"""Appending on PostgreSQL: one statement, for one message or for many, that may be a transaction by itself.

**One message.** The UPDATE locks the session's row until the transaction ends, so a rolled back append takes its number
back with it. Two appends of the same ``client_id`` at the same time are the one case that the statement cannot decide
alone: each looked for the other before it waited for the row. The later one's INSERT does nothing, and the number it
took is given back before anyone else can see it.

**Many messages.** The statement locks the sessions' rows in the order of their ids, so that batches of several
processes never wait in a circle. It leaves out what was appended before under the same client id, and gives the rest
consecutive numbers in the order they were given. It looks for client ids before it waits for the rows, so a message
that another transaction appends at the same moment under the same id makes it fail as a whole, on the unique index.
Repeating it finds that message. Callers that cannot repeat lock the rows by a statement before. A message that expects
a number, or that changes the session's context, is the only one of its session in the batch.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from agent_service.infrastructure.database.append.batch import Batch, Counters, Place
from agent_service.infrastructure.database.append.few_postgres import few_for
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.driver import fetch_row, fetch_rows

__all__ = ["APPEND_ALONE", "APPEND_ONE", "append_many", "append_one", "parameters_of_one", "places_of", "statement_for"]

Statement: TypeAlias = tuple[str, tuple[Any, ...]]

_TAKE_AND_ADD: Final = """
WITH taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + 1,
        total_messages = total_messages + 1,
        total_tokens = total_tokens + coalesce($7::int, 0),
        last_activity_at = greatest(last_activity_at, $8::timestamptz),
        updated_at = greatest(updated_at, $8::timestamptz),
        expires_at = greatest(expires_at, $9::timestamptz){context}
    WHERE tenant_id = $2::varchar AND id = $1::uuid AND deleted_at IS NULL
        AND ($3::varchar IS NULL
             OR NOT EXISTS (
                SELECT FROM agent_service_session_messages
                WHERE tenant_id = $2::varchar AND session_id = $1::uuid AND client_id = $3::varchar
             ))
        AND ($10::bigint IS NULL OR last_seq = $10::bigint)
        AND ($11::int IS NULL OR version = $11::int)
    RETURNING last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
    SELECT $1::uuid, last_seq, $3::varchar, $4::text, $5::text, $6::json, $7::int, $8::timestamptz, $2::varchar
    FROM taken
{answer}
"""

APPEND_ONE: Final = _TAKE_AND_ADD.replace("{context}", "").replace(
    "{answer}",
    """
    ON CONFLICT (tenant_id, session_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
    RETURNING seq
)
SELECT last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at, (SELECT seq FROM added)
FROM taken
""",
)

_APPEND_WITH_CONTEXT: Final = _TAKE_AND_ADD.replace("{answer}", ") SELECT 0, last_seq, total_messages FROM taken")
APPEND_ALONE: Final = _APPEND_WITH_CONTEXT.replace("{context}", "")
"""The same as a transaction by itself, which can give nothing back: of two appends of one client id at the same time
the later one fails, on the unique index. Repeating it finds the other's message."""

_APPEND_ALONE_WITH_CONTEXT: Final = _APPEND_WITH_CONTEXT.replace(
    "{context}", ", context = context || $12::text::jsonb, version = version + 1"
)

_GIVE_BACK: Final = """
UPDATE agent_service_sessions
SET last_seq = last_seq - 1, total_messages = total_messages - 1, total_tokens = total_tokens - $3::int
WHERE tenant_id = $1::varchar AND id = $2::uuid
"""

_TAKE_AND_ADD_MANY: Final = """
WITH given AS (
    SELECT * FROM unnest($4::uuid[], $5::varchar[], $6::text[], $7::text[], $8::json[], $9::int[]{conditions})
        WITH ORDINALITY AS given (session_id, client_id, role, content, data, token_count{names}, place)
), locked AS (
    SELECT id, last_seq FROM agent_service_sessions
    WHERE tenant_id = $1::varchar AND id = ANY ($4::uuid[]) AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), fresh AS (
    SELECT given.*, row_number() OVER (PARTITION BY session_id ORDER BY place) AS nth
    FROM given JOIN locked ON locked.id = given.session_id
    WHERE (given.client_id IS NULL OR NOT EXISTS (
        SELECT FROM agent_service_session_messages AS earlier
        WHERE earlier.tenant_id = $1::varchar AND earlier.session_id = given.session_id
            AND earlier.client_id = given.client_id
    )){expected}
), counted AS (
    SELECT session_id, count(*) AS messages, coalesce(sum(token_count), 0) AS tokens{patch}
    FROM fresh GROUP BY session_id
), taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + messages,
        total_messages = total_messages + messages,
        total_tokens = total_tokens + tokens,
        last_activity_at = greatest(last_activity_at, $2::timestamptz),
        updated_at = greatest(updated_at, $2::timestamptz),
        expires_at = greatest(expires_at, $3::timestamptz){context}
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
_CONDITIONS: Final = {
    "conditions": ", $10::bigint[], $11::text[]",
    "names": ", expected, context",
    "expected": " AND (given.expected IS NULL OR given.expected = locked.last_seq)",
    "patch": ", max(context) AS patch",  # the one there is, because its message is alone
    "context": (
        ", context = CASE WHEN patch IS NULL THEN context ELSE context || patch::jsonb END"
        ", version = version + CASE WHEN patch IS NULL THEN 0 ELSE 1 END"
    ),
}
_APPEND_MANY_IF: Final = _TAKE_AND_ADD_MANY.format_map(_CONDITIONS)
_APPEND_MANY: Final = _TAKE_AND_ADD_MANY.format_map(dict.fromkeys(_CONDITIONS, ""))


def append_one(
    connection: Connection, batch: Batch, expected_seq: int | None, expected_version: int | None
) -> Counters | None:
    """Append a batch of one in the connection's transaction."""
    parameters = parameters_of_one(batch, expected_seq, expected_version)
    row = fetch_row(connection, names_of(connection).render(APPEND_ONE), parameters)
    if row is None:
        return None
    *counters, added = row
    if added is None:
        (message,) = batch.messages
        connection.exec_driver_sql(_GIVE_BACK, (batch.tenant_id, message.session_id, message.token_count or 0))
        return None
    found = Counters(*counters)
    if found.expires_at.tzinfo is None or found.last_activity_at.tzinfo is None or found.updated_at.tzinfo is None:
        # The driver takes the last moment of the calendar for infinity, which it gives without a time zone.
        moments = {name: getattr(found, name) for name in ("last_activity_at", "updated_at", "expires_at")}
        return found._replace(**{name: moment.replace(tzinfo=UTC) for name, moment in moments.items()})
    return found


def append_many(connection: Connection, batch: Batch) -> list[Place | None]:
    """Append in the connection's transaction, which holds the sessions' rows; None for each that was not added."""
    names = names_of(connection)
    few = few_for(batch)
    rows = [] if few is None else fetch_rows(connection, names.render(few[0]), few[1])
    if not rows:
        statement, parameters = _many(batch)
        rows = fetch_rows(connection, names.render(statement), parameters)
    return places_of(batch, rows)


def statement_for(batch: Batch) -> Statement:
    """Return the statement, with its parameters, that appends the batch as a transaction by itself.

    A single message has one of its own: the general one is planned each time, which costs as much as the append.
    """
    if len(batch.messages) > 1:
        return _many(batch)
    (message,) = batch.messages
    parameters = parameters_of_one(batch, message.expected_seq, None)
    if message.context is None:
        return APPEND_ALONE, parameters
    return _APPEND_ALONE_WITH_CONTEXT, (*parameters, message.context)


def places_of(batch: Batch, rows: Iterable[Sequence[Any]]) -> list[Place | None]:
    """Read the statement's answer: a place for each message that was added."""
    places: list[Place | None] = [None] * len(batch.messages)
    for index, seq, total in rows:
        places[index] = Place(seq, total)
    return places


def parameters_of_one(batch: Batch, expected_seq: int | None, expected_version: int | None) -> tuple[Any, ...]:
    """Return the parameters of :data:`APPEND_ONE` and :data:`APPEND_ALONE`."""
    (message,) = batch.messages
    return (
        message.session_id,
        batch.tenant_id,
        message.client_id,
        message.role,
        message.search_text,
        message.text,
        message.token_count,
        batch.now,
        batch.expires_at,
        expected_seq,
        expected_version,
    )


def _many(batch: Batch) -> Statement:
    messages = batch.messages
    parameters: tuple[Any, ...] = (
        batch.tenant_id,
        batch.now,
        batch.expires_at,
        [message.session_id for message in messages],
        [message.client_id for message in messages],
        [message.role for message in messages],
        [message.search_text for message in messages],
        [message.text for message in messages],
        [message.token_count for message in messages],
    )
    if not any(message.alone for message in messages):
        return _APPEND_MANY, parameters
    expected = [message.expected_seq for message in messages]
    return _APPEND_MANY_IF, (*parameters, expected, [message.context for message in messages])
