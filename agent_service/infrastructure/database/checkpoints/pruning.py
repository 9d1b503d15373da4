"""Removing checkpoints of a thread: all but the latest, or those of some runs.

A checkpoint whose channels are rebuilt from the writes of earlier checkpoints is nothing without those, so they stay.
"""

import json
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.checkpoints.ancestry import Branch, replayed_ancestors
from agent_service.infrastructure.database.checkpoints.spaces import keep_needed_values
from agent_service.infrastructure.database.checkpoints.statements import Statement
from agent_service.infrastructure.database.checkpoints.threads import Thread, lock_threads, remove_locked

__all__ = ["keep_latest", "remove_runs", "threads_of_runs"]

_HEADS: Final = Statement("""
SELECT c.namespace, c.checkpoint_id, c.versions FROM agent_service_checkpoints AS c
WHERE c.tenant_id = $1 AND c.thread = $2 AND c.checkpoint_id = (
    SELECT max(latest.checkpoint_id) FROM agent_service_checkpoints AS latest
    WHERE latest.tenant_id = $1 AND latest.thread = $2 AND latest.namespace = c.namespace
)
""")
_REPLAYED: Final = Statement("""
SELECT DISTINCT namespace, replayed FROM agent_service_checkpoints
WHERE tenant_id = $1 AND thread = $2 AND replayed IS NOT NULL
""")
_REMOVE_REST: Final = Statement("""
DELETE FROM agent_service_checkpoints
WHERE tenant_id = $1 AND thread = $2 AND namespace = $3
    AND checkpoint_id NOT IN TEXTS($4)
RETURNING checkpoint_id
""")
_OF_RUNS: Final = Statement("""
SELECT thread FROM agent_service_checkpoints WHERE tenant_id = $1 AND run_id IN TEXTS($2)
""")
_NAMES: Final = Statement("""
SELECT thread_id FROM agent_service_checkpoint_threads WHERE tenant_id = $1 AND id IN KEYS($2)
""")
_REMOVE_RUNS: Final = Statement("""
DELETE FROM agent_service_checkpoints
WHERE tenant_id = $1 AND thread = $2 AND run_id IN TEXTS($3)
RETURNING namespace, checkpoint_id
""")
_NEEDS_A_RUN: Final = Statement("""
SELECT c.checkpoint_id FROM agent_service_checkpoints AS c
JOIN agent_service_checkpoints AS parent ON parent.tenant_id = $1 AND parent.thread = $2
    AND parent.namespace = c.namespace AND parent.checkpoint_id = c.parent_id
WHERE c.tenant_id = $1 AND c.thread = $2 AND c.replayed IS NOT NULL
    AND coalesce(c.run_id, '') NOT IN TEXTS($3)
    AND parent.run_id IN TEXTS($3)
LIMIT 1
""")
_REMOVE_WRITES: Final = Statement("""
DELETE FROM agent_service_checkpoint_writes
WHERE tenant_id = $1 AND thread = $2 AND namespace = $3
    AND checkpoint_id IN TEXTS($4)
""")
_UNLINK: Final = Statement("""
UPDATE agent_service_checkpoints SET parent_id = NULL
WHERE tenant_id = $1 AND thread = $2 AND namespace = $3
    AND parent_id IN TEXTS($4)
""")
_LEFT: Final = Statement("SELECT 1 FROM agent_service_checkpoints WHERE tenant_id = $1 AND thread = $2 LIMIT 1")


def keep_latest(connection: Connection, tenant_id: str, thread_id: str) -> int:
    """Remove all checkpoints of a thread but the latest of each namespace, and what that one is rebuilt from.

    Writes after checkpoints that are not stored stay: a run may store them in either order.

    :return: how many checkpoints were removed.
    """
    removed = 0
    for thread in lock_threads(connection, tenant_id, [thread_id]):
        replayed: dict[str, set[str]] = {}
        for namespace, channels in _REPLAYED.run(connection, tenant_id, thread.key):
            replayed.setdefault(namespace, set()).update(json.loads(channels))
        for namespace, head, versions in _HEADS.run(connection, tenant_id, thread.key):
            branch = Branch(tenant_id, thread.key, namespace)
            wanted = replayed.get(namespace, set()).intersection(json.loads(versions))
            # A channel that has a value here needs nothing else: the walk begins here.
            kept = {head} | (replayed_ancestors(connection, branch, head, wanted) if wanted else set())
            gone = _REMOVE_REST.run(connection, *branch, sorted(kept))
            _forget(connection, branch, [each for (each,) in gone])
            removed += len(gone)
        if removed:
            keep_needed_values(connection, tenant_id, thread.key, thread.space)
    return removed


def threads_of_runs(connection: Connection, tenant_id: str, run_ids: Collection[str]) -> list[str]:
    """Return the threads that have checkpoints of these runs."""
    keys = list({key for (key,) in _OF_RUNS.run(connection, tenant_id, sorted(set(run_ids)))})
    return sorted(thread_id for (thread_id,) in _NAMES.run(connection, tenant_id, keys)) if keys else []


def remove_runs(connection: Connection, tenant_id: str, thread_id: str, run_ids: Collection[str]) -> int:
    """Remove the checkpoints of a thread that were made by these runs, and the thread with its last checkpoint.

    :return: how many checkpoints were removed.
    :raises SessionConflictError: a checkpoint that would stay is rebuilt from writes of one of the runs.
    """
    runs = sorted(set(run_ids))
    for thread in lock_threads(connection, tenant_id, [thread_id]):
        if _NEEDS_A_RUN.run(connection, tenant_id, thread.key, runs):
            raise SessionConflictError(
                f"thread {thread_id!r:.80} has later checkpoints whose channels are rebuilt from what these runs "
                "wrote, so nothing of it was removed; name the later runs too, or delete the thread"
            )
        gone: dict[str, list[str]] = {}
        for namespace, checkpoint_id in _REMOVE_RUNS.run(connection, tenant_id, thread.key, runs):
            gone.setdefault(namespace, []).append(checkpoint_id)
        for namespace, checkpoint_ids in gone.items():
            _forget(connection, Branch(tenant_id, thread.key, namespace), checkpoint_ids)
        _drop_unused(connection, tenant_id, thread)
        return sum(map(len, gone.values()))
    return 0


def _forget(connection: Connection, branch: Branch, checkpoint_ids: Collection[str]) -> None:
    """Remove what refers to checkpoints that were removed."""
    if checkpoint_ids:
        for statement in (_REMOVE_WRITES, _UNLINK):
            statement.run(connection, *branch, sorted(checkpoint_ids))


def _drop_unused(connection: Connection, tenant_id: str, thread: Thread) -> None:
    if _LEFT.run(connection, tenant_id, thread.key):
        keep_needed_values(connection, tenant_id, thread.key, thread.space)
    else:
        remove_locked(connection, tenant_id, [thread])
