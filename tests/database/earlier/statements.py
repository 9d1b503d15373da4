"""Statements of the version before revision 0009, as its services send them to PostgreSQL."""

_TAKE_AND_ADD = """
WITH taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + 1,
        total_messages = total_messages + 1,
        total_tokens = total_tokens + coalesce($7::int, 0),
        last_activity_at = greatest(last_activity_at, $8::timestamptz),
        updated_at = greatest(updated_at, $8::timestamptz),
        expires_at = greatest(expires_at, $9::timestamptz)
    WHERE id = $1::uuid AND tenant_id = $2::varchar AND deleted_at IS NULL
        AND ($3::varchar IS NULL
             OR NOT EXISTS (
                SELECT FROM agent_service_session_messages WHERE session_id = $1::uuid AND client_id = $3::varchar
             ))
        AND ($10::bigint IS NULL OR last_seq = $10::bigint)
        AND ($11::int IS NULL OR version = $11::int)
    RETURNING last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at)
    SELECT $1::uuid, last_seq, $3::varchar, $4::text, $5::text, $6::json, $7::int, $8::timestamptz FROM taken
"""

APPEND = (
    _TAKE_AND_ADD
    + """
    ON CONFLICT (session_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
    RETURNING seq
)
SELECT last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at, (SELECT seq FROM added)
FROM taken
"""
)
APPEND_ALONE = _TAKE_AND_ADD + ") SELECT 0, last_seq, total_messages FROM taken"

APPEND_MANY = """
WITH given AS (
    SELECT * FROM unnest($4::uuid[], $5::varchar[], $6::text[], $7::text[], $8::json[], $9::int[])
        WITH ORDINALITY AS given (session_id, client_id, role, content, data, token_count, place)
), locked AS (
    SELECT id FROM agent_service_sessions WHERE id = ANY ($4::uuid[]) AND tenant_id = $1::varchar AND deleted_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), fresh AS (
    SELECT given.*, row_number() OVER (PARTITION BY session_id ORDER BY place) AS nth
    FROM given JOIN locked ON locked.id = given.session_id
    WHERE given.client_id IS NULL OR NOT EXISTS (
        SELECT FROM agent_service_session_messages AS earlier
        WHERE earlier.session_id = given.session_id AND earlier.client_id = given.client_id
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
    FROM counted WHERE id = session_id
    RETURNING id, last_seq - messages AS base, total_messages
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at)
    SELECT session_id, base + nth, client_id, role, content, data, token_count, $2::timestamptz
    FROM fresh JOIN taken ON taken.id = fresh.session_id
)
SELECT place - 1, base + nth, total_messages FROM fresh JOIN taken ON taken.id = fresh.session_id
"""

COPY_TO_FORK = """
INSERT INTO agent_service_session_messages (session_id, seq, client_id, role, content, data, token_count, created_at)
SELECT $2::uuid, seq, NULL, role, content, data, token_count, created_at
FROM agent_service_session_messages WHERE session_id = $1::uuid
"""
READ = "SELECT seq, data FROM agent_service_session_messages WHERE session_id = $1::uuid ORDER BY seq DESC LIMIT 50"
REMOVE = "DELETE FROM agent_service_sessions WHERE id = ANY ($1::uuid[])"
