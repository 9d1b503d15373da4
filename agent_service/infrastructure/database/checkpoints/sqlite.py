"""Writing on SQLite, in a transaction that holds the write lock."""

from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.infrastructure.database.append.sqlite import Run
from agent_service.infrastructure.database.checkpoints.batch import Rows
from agent_service.infrastructure.database.values.types import sqlite_moment

__all__ = ["write_locked"]

_ACTIVE: Final = timedelta(minutes=10)

_THREAD: Final = """
INSERT INTO agent_service_checkpoint_threads AS known (tenant_id, thread_id, id, space, user_id, active_at)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, thread_id) DO UPDATE SET
    user_id = coalesce(known.user_id, excluded.user_id),
    active_at = CASE WHEN known.active_at < ? THEN excluded.active_at ELSE known.active_at END
RETURNING id, space
"""

_CHECKPOINT: Final = """
INSERT INTO agent_service_checkpoints (
    tenant_id, thread, namespace, checkpoint_id, parent_id, versions, replayed, facts, run_id, format, document,
    meta_format, meta
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, thread, namespace, checkpoint_id) DO UPDATE SET
    parent_id = excluded.parent_id, versions = excluded.versions, replayed = excluded.replayed,
    facts = excluded.facts, run_id = excluded.run_id, format = excluded.format, document = excluded.document,
    meta_format = excluded.meta_format, meta = excluded.meta
"""

_BLOB: Final = """
INSERT INTO agent_service_checkpoint_blobs (tenant_id, space, namespace, channel, version, format, value)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, space, namespace, channel, version) DO UPDATE SET
    format = excluded.format, value = excluded.value
"""

_WRITE: Final = """
INSERT INTO agent_service_checkpoint_writes AS known (
    tenant_id, thread, namespace, checkpoint_id, task_id, place, task_path, channel, format, value
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, thread, namespace, checkpoint_id, task_id, place) DO UPDATE SET
    task_path = excluded.task_path, channel = excluded.channel, format = excluded.format, value = excluded.value
WHERE known.place < 0
"""


def write_locked(run: Run, tenant_id: str, rows: Rows) -> None:
    """Write the rows."""
    now = SYSTEM_CLOCK.now() if rows.now is None else rows.now
    moments = (sqlite_moment(now), sqlite_moment(now - _ACTIVE))
    places: dict[str, Any] = {}
    for thread_id, user_id in rows.threads.items():
        given = (tenant_id, thread_id, uuid4().hex, uuid4().hex, user_id, *moments)
        (places[thread_id],) = list(run(_THREAD, given))
    for statement, table, which in (
        (_CHECKPOINT, rows.checkpoints, 0),
        (_BLOB, rows.blobs, 1),
        (_WRITE, rows.writes, 0),
    ):
        if table:
            run(statement, [(tenant_id, places[row[0]][which], *row[1:]) for row in table.values()])
