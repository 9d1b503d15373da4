"""Appending a few messages to one session on PostgreSQL, as a turn of an agent does.

The statement for batches of any size is planned each time, because what is best depends on the lengths of its lists.
That costs more than it does itself. This one names each message, so its plan is made once for each number of messages.

It appends all of them or none: none where the session is not there, or where one was appended before under its client
id. Then the other statement finds out which. Of two appends of one client id at the same moment the later one fails, on
the unique index; repeating it finds the other's message.
"""

from typing import Any, Final

from agent_service.infrastructure.database.append.batch import Batch

__all__ = ["MOST", "few_for"]

MOST: Final = 8
"""Messages that are a few: each number of them is a statement that the server prepares."""
_FIELDS: Final = 5
_FIRST: Final = 7
"""The number of the first message's first parameter."""

_APPEND_FEW: Final = """
WITH given (nth, client_id, role, content, data, token_count) AS (
    VALUES {given}
), taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + {count},
        total_messages = total_messages + {count},
        total_tokens = total_tokens + $5::bigint,
        last_activity_at = greatest(last_activity_at, $3::timestamptz),
        updated_at = greatest(updated_at, $3::timestamptz),
        expires_at = greatest(expires_at, $4::timestamptz)
    WHERE tenant_id = $1::varchar AND id = $2::uuid AND deleted_at IS NULL
        AND NOT EXISTS (
            SELECT FROM agent_service_session_messages
            WHERE tenant_id = $1::varchar AND session_id = $2::uuid AND client_id = ANY ($6::varchar[])
        )
    RETURNING last_seq - {count} AS base, total_messages
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
    SELECT $2::uuid, base + nth, client_id, role, content, data, token_count, $3::timestamptz, $1::varchar
    FROM taken, given
)
SELECT nth - 1, base + nth, total_messages FROM taken, given
"""


def _given(count: int) -> str:
    numbers = range(_FIRST, _FIRST + count * _FIELDS, _FIELDS)
    return ", ".join(
        f"({nth}::bigint, ${n}::varchar, ${n + 1}::text, ${n + 2}::text, ${n + 3}::json, ${n + 4}::int)"
        for nth, n in enumerate(numbers, 1)
    )


_STATEMENTS: Final = {
    count: _APPEND_FEW.replace("{given}", _given(count)).replace("{count}", str(count)) for count in range(2, MOST + 1)
}


def few_for(batch: Batch) -> tuple[str, tuple[Any, ...]] | None:
    """Return the statement for a batch, with its parameters; None: its messages are of several sessions, or more."""
    messages = batch.messages
    statement = _STATEMENTS.get(len(messages))
    if statement is None or any(each.session_id != messages[0].session_id for each in messages):
        return None
    return statement, (
        batch.tenant_id,
        messages[0].session_id,
        batch.now,
        batch.expires_at,
        sum(each.token_count or 0 for each in messages),
        [each.client_id for each in messages if each.client_id is not None],
        *(
            value
            for each in messages
            for value in (each.client_id, each.role, each.search_text, each.text, each.token_count)
        ),
    )
