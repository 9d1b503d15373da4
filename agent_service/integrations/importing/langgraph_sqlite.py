"""Threads in the file of LangGraph's SQLite savers, which keep each checkpoint with all its values in one piece."""

from collections.abc import AsyncIterator
from typing import Final

from agent_service.infrastructure.database.foreign import Reading, Row, SourceTable
from agent_service.integrations.importing.conversations import Unreadable, UnreadableError
from agent_service.integrations.importing.langgraph_values import (
    Coding,
    Versions,
    parse_metadata,
    writes_of,
)
from agent_service.integrations.importing.threads import SourceCheckpoint

__all__ = ["SqliteThreads"]

_CHECKPOINT: Final = ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type", "checkpoint", "metadata")
_WRITE: Final = ("task_id", "idx", "channel", "type", "value")


class SqliteThreads:
    """Reads the two tables."""

    def __init__(self, checkpoints: SourceTable, writes: SourceTable, coding: Coding) -> None:
        self._checkpoints = checkpoints
        self._writes = writes
        self._coding = coding

    async def checkpoints(
        self, reading: Reading, thread_id: str, place: str
    ) -> AsyncIterator[SourceCheckpoint | Unreadable]:
        """Return the checkpoints of a thread, namespace by namespace, the smallest ids first."""
        versions = Versions(thread_id, self._coding)
        walk = reading.walk(
            self._checkpoints,
            _CHECKPOINT,
            where={"thread_id": thread_id},
            order=("checkpoint_ns", "checkpoint_id"),
            weigh=("checkpoint", "metadata"),
        )
        async for row in walk:
            there = f"{place}, checkpoint {row['checkpoint_id']!a:.80} of namespace {row['checkpoint_ns']!a:.80}"
            try:
                yield await self._checkpoint(reading, thread_id, row, there, versions)
            except (ValueError, TypeError) as exc:
                yield Unreadable(there, str(exc) if isinstance(exc, ValueError) else "is damaged")

    async def _checkpoint(
        self, reading: Reading, thread_id: str, row: Row, place: str, versions: Versions
    ) -> SourceCheckpoint | Unreadable:
        document = self._coding.open(row["type"], bytes(row["checkpoint"]))
        if not isinstance(document, dict):
            raise UnreadableError("is no checkpoint")
        values = {
            channel: self._coding.encode(value)
            for channel, value in (document.pop("channel_values", None) or {}).items()
        }
        path = ("task_path",) if "task_path" in self._writes.columns else ()
        where = {"thread_id": thread_id, "checkpoint_ns": row["checkpoint_ns"], "checkpoint_id": row["checkpoint_id"]}
        rows = reading.walk(self._writes, (*_WRITE, *path), where=where, order=("task_id", "idx"), weigh=("value",))
        writes = writes_of([each async for each in rows], "value")
        metadata = parse_metadata(row["metadata"])
        return versions.checkpoint(row, place, document=document, metadata=metadata, values=values, writes=writes)
