"""The rows that some changes of one tenant make, each key once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent_service.infrastructure.database.checkpoints.changes import Change, NewCheckpoint
from agent_service.infrastructure.database.checkpoints.channels import index_name

__all__ = ["Rows", "rows_of"]


@dataclass(slots=True)
class Rows:
    """Rows by table. A row begins with its thread's id.

    :param threads: the user of each thread; None: not known.
    :param checkpoints: rows by key; the last one of a key.
    :param blobs: the same for values.
    :param writes: the same for writes; the first one of a key, or the last one of a special kind.
    :param now: replaces the database's clock.
    """

    threads: dict[str, str | None] = field(default_factory=dict)
    checkpoints: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    blobs: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    writes: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    now: datetime | None = None


def rows_of(changes: Iterable[Change], now: datetime | None = None) -> Rows:
    """Return what a sequence of changes comes to, if each is made after the one before."""
    rows = Rows(now=now)
    for change in changes:
        user = rows.threads.get(change.thread_id)
        rows.threads[change.thread_id] = change.user_id if user is None else user
        place = (change.thread_id, change.namespace)
        if isinstance(change, NewCheckpoint):
            key = (*place, change.checkpoint_id)
            rows.checkpoints[key] = (*key, *change.row())
            for channel, value in change.values.items():
                named = (*place, index_name(channel), change.versions[channel])
                rows.blobs[named] = (*named, *value)
            continue
        for write in change.writes:
            task = (*place, change.checkpoint_id, change.task_id, write.place)
            row = (*task, change.task_path, write.channel, *write.value)
            if write.place < 0:
                rows.writes[task] = row
            else:
                rows.writes.setdefault(task, row)
    return rows
