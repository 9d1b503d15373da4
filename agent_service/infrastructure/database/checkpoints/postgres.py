"""Writing on PostgreSQL: one statement for any number of changes, which may be a transaction by itself.

It locks the rows of the threads first, in the order of their ids, so batches of several processes never wait in a
circle, and whoever holds a thread's row (to copy, prune or remove it) knows that nobody writes to it.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias
from uuid import uuid4

from agent_service.infrastructure.database.checkpoints.batch import Rows

__all__ = ["statement_for"]

Statement: TypeAlias = tuple[str, tuple[Any, ...]]

# Ten minutes: a thread's row is changed at each write, and its index only where it was not active for that long.
_THREADS: Final = """
WITH touched AS (
    INSERT INTO agent_service_checkpoint_threads AS known (tenant_id, thread_id, id, space, user_id, active_at)
    SELECT $1::varchar, given.thread_id, given.id, given.space, given.user_id, coalesce($2::timestamptz, now())
    FROM unnest($3::text[], $4::uuid[], $5::uuid[], $6::varchar[]) AS given (thread_id, id, space, user_id)
    ORDER BY given.thread_id COLLATE "C"
    ON CONFLICT (tenant_id, thread_id) DO UPDATE SET
        user_id = coalesce(known.user_id, excluded.user_id),
        active_at = CASE
            WHEN known.active_at < excluded.active_at - interval '10 minutes' THEN excluded.active_at
            ELSE known.active_at
        END
    RETURNING thread_id, id, space
)
"""

_CHECKPOINTS: Final = """
, saved AS (
    INSERT INTO agent_service_checkpoints (
        tenant_id, thread, namespace, checkpoint_id, parent_id, versions, replayed, facts, run_id, format, document,
        meta_format, meta
    )
    SELECT $1::varchar, touched.id, given.namespace, given.checkpoint_id, given.parent_id, given.versions,
        given.replayed, given.facts, given.run_id, given.format, given.document, given.meta_format, given.meta
    FROM unnest(
        {}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::text[],
        {}::bytea[], {}::text[], {}::bytea[]
    ) AS given (
        thread_id, namespace, checkpoint_id, parent_id, versions, replayed, facts, run_id, format, document,
        meta_format, meta
    ) JOIN touched USING (thread_id)
    ON CONFLICT (tenant_id, thread, namespace, checkpoint_id) DO UPDATE SET
        parent_id = excluded.parent_id, versions = excluded.versions, replayed = excluded.replayed,
        facts = excluded.facts, run_id = excluded.run_id, format = excluded.format, document = excluded.document,
        meta_format = excluded.meta_format, meta = excluded.meta
)
"""

_BLOBS: Final = """
, kept AS (
    INSERT INTO agent_service_checkpoint_blobs (tenant_id, space, namespace, channel, version, format, value)
    SELECT $1::varchar, touched.space, given.namespace, given.channel, given.version, given.format, given.value
    FROM unnest({}::text[], {}::text[], {}::text[], {}::text[], {}::text[], {}::bytea[])
        AS given (thread_id, namespace, channel, version, format, value) JOIN touched USING (thread_id)
    ON CONFLICT (tenant_id, space, namespace, channel, version) DO UPDATE SET
        format = excluded.format, value = excluded.value
)
"""

_WRITES: Final = """
, wrote AS (
    INSERT INTO agent_service_checkpoint_writes AS known (
        tenant_id, thread, namespace, checkpoint_id, task_id, place, task_path, channel, format, value
    )
    SELECT $1::varchar, touched.id, given.namespace, given.checkpoint_id, given.task_id, given.place, given.task_path,
        given.channel, given.format, given.value
    FROM unnest(
        {}::text[], {}::text[], {}::text[], {}::text[], {}::int[], {}::text[], {}::text[], {}::text[], {}::bytea[]
    ) AS given (thread_id, namespace, checkpoint_id, task_id, place, task_path, channel, format, value)
    JOIN touched USING (thread_id)
    ON CONFLICT (tenant_id, thread, namespace, checkpoint_id, task_id, place) DO UPDATE SET
        task_path = excluded.task_path, channel = excluded.channel, format = excluded.format, value = excluded.value
    WHERE known.place < 0
)
"""

_COLUMNS: Final = {_CHECKPOINTS: 12, _BLOBS: 6, _WRITES: 9}


def statement_for(tenant_id: str, rows: Rows) -> Statement:
    """Return the statement, with its parameters, that writes the rows."""
    threads = list(rows.threads)
    spaces = [uuid4() for _ in range(2 * len(threads))]
    parameters: list[Any] = [
        tenant_id, rows.now, threads, spaces[: len(threads)], spaces[len(threads) :], list(rows.threads.values())
    ]  # fmt: skip
    parts = [_THREADS]
    for part, given in ((_CHECKPOINTS, rows.checkpoints), (_BLOBS, rows.blobs), (_WRITES, rows.writes)):
        if given:
            first = len(parameters) + 1
            parts.append(part.format(*(f"${first + each}" for each in range(_COLUMNS[part]))))
            parameters += _by_column(given.values())
    return "".join((*parts, "SELECT 0 LIMIT 0")), tuple(parameters)


def _by_column(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
