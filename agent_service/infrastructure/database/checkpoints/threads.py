"""Removing and copying threads, in a transaction of the caller's.

Every function locks the rows of its threads first, in the order of their ids, so that nobody writes to them meanwhile.
On SQLite the transaction has the write lock from there on.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.checkpoints.spaces import keep_needed_values, let_go
from agent_service.infrastructure.database.checkpoints.statements import Statement, new_id
from agent_service.infrastructure.database.checkpoints.writing import moved_now
from agent_service.infrastructure.database.values.types import sqlite_moment

__all__ = ["Thread", "copy_thread", "lock_threads", "lock_threads_of_user", "remove_locked", "remove_threads"]

_MOST_SHARES: Final = 32
"""Spaces that a thread shares, before it takes over what it needs: a reader looks for each value in all of them."""

_TOUCH: Final = Statement("UPDATE agent_service_checkpoint_threads SET active_at = active_at WHERE 1 = 0")
"""Takes SQLite's write lock, and changes nothing."""
_LOCK: Final = Statement("""
SELECT thread_id, id, space, user_id FROM agent_service_checkpoint_threads
WHERE tenant_id = $1 AND thread_id IN TEXTS($2)
ORDER BY thread_id FOR UPDATE
""")
_OF_USER: Final = Statement("""
SELECT thread_id FROM agent_service_checkpoint_threads WHERE tenant_id = $1 AND user_id = $2 LIMIT $3
""")
_REMOVE: Final = tuple(
    Statement(f"""
DELETE FROM agent_service_{table}
WHERE tenant_id = $1 AND {key} IN KEYS($2)
""")  # noqa: S608 - text of our own
    for table, key in (("checkpoint_writes", "thread"), ("checkpoints", "thread"), ("checkpoint_threads", "id"))
)

_HAS_VALUES: Final = Statement(
    "SELECT 1 FROM agent_service_checkpoint_blobs WHERE tenant_id = $1 AND space = $2 LIMIT 1"
)
_RANK: Final = Statement("""
SELECT count(*), coalesce(max(rank), 0) FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND thread = $2
""")
_FREEZE: Final = Statement("""
INSERT INTO agent_service_checkpoint_shares (tenant_id, thread, space, rank) VALUES ($1, $2, $3, $4)
""")
_MOVE_ON: Final = Statement("""
UPDATE agent_service_checkpoint_threads SET space = $3 WHERE tenant_id = $1 AND id = $2
""")
_MAKE: Final = Statement("""
INSERT INTO agent_service_checkpoint_threads (tenant_id, thread_id, id, space, user_id, active_at)
SELECT $1, $2::text, $3, $4, user_id, coalesce($6::timestamptz, CURRENT_TIMESTAMP)
FROM agent_service_checkpoint_threads WHERE tenant_id = $1 AND id = $5
ON CONFLICT (tenant_id, thread_id) DO NOTHING
RETURNING id
""")
_COPY: Final = (
    Statement("""
INSERT INTO agent_service_checkpoint_shares (tenant_id, thread, space, rank)
SELECT tenant_id, $3, space, rank FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND thread = $2
"""),
    Statement("""
INSERT INTO agent_service_checkpoints (
    tenant_id, thread, namespace, checkpoint_id, parent_id, versions, replayed, facts, run_id, format, document,
    meta_format, meta
)
SELECT tenant_id, $3, namespace, checkpoint_id, parent_id, versions, replayed, facts, run_id, format, document,
    meta_format, meta
FROM agent_service_checkpoints WHERE tenant_id = $1 AND thread = $2
"""),
    Statement("""
INSERT INTO agent_service_checkpoint_writes (
    tenant_id, thread, namespace, checkpoint_id, task_id, place, task_path, channel, format, value
)
SELECT tenant_id, $3, namespace, checkpoint_id, task_id, place, task_path, channel, format, value
FROM agent_service_checkpoint_writes WHERE tenant_id = $1 AND thread = $2
"""),
)


class Thread(NamedTuple):
    """A thread whose row is locked: its id, its key and the space that it writes to."""

    thread_id: str
    key: Any
    space: Any
    user_id: str | None


def lock_threads(connection: Connection, tenant_id: str, thread_ids: Collection[str]) -> list[Thread]:
    """Lock those of the threads that there are."""
    _TOUCH.run(connection)
    return [Thread(*row) for row in _LOCK.run(connection, tenant_id, sorted(set(thread_ids)))]


def lock_threads_of_user(connection: Connection, tenant_id: str, user_id: str, most: int) -> list[Thread]:
    """Lock some threads of a user."""
    _TOUCH.run(connection)
    names = [thread_id for (thread_id,) in _OF_USER.run(connection, tenant_id, user_id, most)]
    return [each for each in lock_threads(connection, tenant_id, names) if each.user_id == user_id] if names else []


def remove_threads(connection: Connection, tenant_id: str, thread_ids: Collection[str]) -> int:
    """Remove threads with all that belongs to them; return how many there were."""
    return remove_locked(connection, tenant_id, lock_threads(connection, tenant_id, thread_ids))


def remove_locked(connection: Connection, tenant_id: str, threads: Iterable[Thread]) -> int:
    """Remove threads whose rows are locked; return how many."""
    dying = list(threads)
    if dying:
        keys = [each.key for each in dying]
        let_go(connection, tenant_id, keys, [each.space for each in dying])
        for statement in _REMOVE:
            statement.run(connection, tenant_id, keys)
    return len(dying)


def copy_thread(connection: Connection, tenant_id: str, source_id: str, target_id: str) -> bool:
    """Copy a thread: its checkpoints and writes are copied, and the values of its channels are shared.

    To copy is to write, so the other thread begins to be idle now, however long ago the first one was written to.

    :return: False: there is no such thread, and nothing was done.
    :raises SessionConflictError: the other thread exists.
    """
    found = {each.thread_id: each for each in lock_threads(connection, tenant_id, [source_id, target_id])}
    source = found.get(source_id)
    if source is None:
        return False
    target = new_id(connection, uuid4())
    made = target_id not in found and _MAKE.run(
        connection, tenant_id, target_id, target, new_id(connection, uuid4()), source.key, _now(connection)
    )
    if not made:
        raise SessionConflictError(
            f"thread {target_id!r:.80} exists, so nothing was copied; remove it, or copy to another id"
        )
    _share(connection, tenant_id, source)
    for statement in _COPY:
        statement.run(connection, tenant_id, source.key, target)
    return True


def _now(connection: Connection) -> datetime | str | None:
    """Return the present as the engine takes it; None: the database knows it."""
    return moved_now() if connection.dialect.name == "postgresql" else sqlite_moment(SYSTEM_CLOCK.now())


def _share(connection: Connection, tenant_id: str, source: Thread) -> None:
    """Have a thread write to a new space, if it wrote to its own, and share that."""
    if not _HAS_VALUES.run(connection, tenant_id, source.space):
        return
    ((shares, rank),) = _RANK.run(connection, tenant_id, source.key)
    if shares >= _MOST_SHARES:
        keep_needed_values(connection, tenant_id, source.key, source.space)
        rank = 0
    _FREEZE.run(connection, tenant_id, source.key, source.space, rank + 1)
    _MOVE_ON.run(connection, tenant_id, source.key, new_id(connection, uuid4()))
