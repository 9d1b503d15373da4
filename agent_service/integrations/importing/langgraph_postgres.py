"""Threads in the tables of LangGraph's PostgreSQL savers: checkpoints as JSON, values and writes as bytes."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from agent_service.infrastructure.database.checkpoints.changes import Encoded
from agent_service.infrastructure.database.foreign import Reading, Row, SourceTable
from agent_service.integrations.importing.conversations import Unreadable, UnreadableError
from agent_service.integrations.importing.langgraph_values import (
    SENDS,
    Coding,
    Versions,
    parse_metadata,
    version_text,
    writes_of,
)
from agent_service.integrations.importing.threads import SourceCheckpoint, SourceWrite

__all__ = ["PostgresThreads"]

_CHECKPOINT: Final = ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata")
_EMPTY: Final = "empty"
_SENDS_BEFORE: Final = 4
"""Checkpoints below this format have what was to be sent among the writes after their parent."""


class PostgresThreads:
    """Reads the three tables."""

    def __init__(self, checkpoints: SourceTable, blobs: SourceTable, writes: SourceTable, coding: Coding) -> None:
        self._coding = coding
        self._checkpoints = checkpoints
        self._blobs = blobs
        self._writes = writes

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
            except ValueError as exc:
                yield Unreadable(there, str(exc))

    async def _checkpoint(
        self, reading: Reading, thread_id: str, row: Row, place: str, versions: Versions
    ) -> SourceCheckpoint | Unreadable:
        document = json.loads(row["checkpoint"])
        if not isinstance(document, dict):
            raise UnreadableError("checkpoint is no JSON object")
        inline = document.pop("channel_values", None) or {}
        namespace = row["checkpoint_ns"]
        values: dict[str, Encoded | None] = {channel: self._coding.encode(value) for channel, value in inline.items()}
        values |= await self._values(reading, thread_id, namespace, document.get("channel_versions") or {}, versions)
        writes = await self._writes_after(reading, thread_id, namespace, row["checkpoint_id"])
        if document.get("v", 0) < _SENDS_BEFORE and row["parent_checkpoint_id"]:
            # As the saver does whenever it reads such a checkpoint.
            before = await self._writes_after(reading, thread_id, namespace, row["parent_checkpoint_id"])
            self._move_sends(document, values, before)
        metadata = parse_metadata(row["metadata"])
        return versions.checkpoint(row, place, document=document, metadata=metadata, values=values, writes=writes)

    async def _values(
        self, reading: Reading, thread_id: str, namespace: str, named: Mapping[str, Any], versions: Versions
    ) -> dict[str, Encoded | None]:
        """Return the values that lie apart, and None for those that came with an earlier checkpoint."""
        pairs = [(channel, version_text(version)) for channel, version in named.items()]
        known: dict[str, Encoded | None] = {
            channel: None for channel, version in pairs if versions.knows(namespace, channel, version)
        }
        wanted = [pair for pair in pairs if pair[0] not in known]
        rows = await reading.among(
            self._blobs,
            ("channel", "type", "blob"),
            where={"thread_id": thread_id, "checkpoint_ns": namespace},
            names=("channel", "version"),
            values=wanted,
        )
        found = {
            row["channel"]: Encoded(row["type"], bytes(row["blob"] or b"")) for row in rows if row["type"] != _EMPTY
        }
        return known | found

    async def _writes_after(
        self, reading: Reading, thread_id: str, namespace: str, checkpoint_id: str
    ) -> tuple[SourceWrite, ...]:
        columns = ("task_id", "idx", "channel", "type", "blob")
        path = ("task_path",) if "task_path" in self._writes.columns else ()
        where = {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}
        rows = reading.walk(self._writes, (*columns, *path), where=where, order=("task_id", "idx"), weigh=("blob",))
        return writes_of([row async for row in rows], "blob")

    def _move_sends(
        self, document: dict[str, Any], values: dict[str, Encoded | None], before: tuple[SourceWrite, ...]
    ) -> None:
        sends = [self._coding.open(*write.value) for write in before if write.channel == SENDS]
        if sends:
            named = document.setdefault("channel_versions", {})
            values[SENDS] = self._coding.encode(sends)
            named[SENDS] = max(map(version_text, named.values())) if named else f"{1:032}.{0:016}"
