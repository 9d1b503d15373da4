"""Threads in the file of LangGraph's SQLite savers, which keep each checkpoint with all its values in one piece."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from agent_service.infrastructure.database.checkpoints.changes import Encoded
from agent_service.infrastructure.database.foreign import Reading, Row, SourceTable
from agent_service.integrations.importing.conversations import Unreadable
from agent_service.integrations.importing.langgraph_values import (
    Versions,
    encode,
    open_msgpack,
    parse_metadata,
    writes_of,
)
from agent_service.integrations.importing.threads import SourceCheckpoint

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

__all__ = ["SqliteThreads"]

_CHECKPOINT: Final = ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type", "checkpoint", "metadata")
_WRITE: Final = ("task_id", "idx", "channel", "type", "value")


class SqliteThreads:
    """Reads the two tables.

    :param serde: decodes and encodes what was not written by LangGraph's default.
    """

    def __init__(self, checkpoints: SourceTable, writes: SourceTable, serde: "SerializerProtocol | None") -> None:
        self._checkpoints = checkpoints
        self._writes = writes
        self._serde = serde

    async def checkpoints(
        self, reading: Reading, thread_id: str, place: str
    ) -> AsyncIterator[SourceCheckpoint | Unreadable]:
        """Return the checkpoints of a thread, namespace by namespace, the smallest ids first."""
        versions = Versions(thread_id)
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
        document = self._open(row["type"], bytes(row["checkpoint"]))
        if not isinstance(document, dict):
            raise ValueError("is no checkpoint")
        values = {
            channel: self._encode(value) for channel, value in (document.pop("channel_values", None) or {}).items()
        }
        path = ("task_path",) if "task_path" in self._writes.columns else ()
        where = {"thread_id": thread_id, "checkpoint_ns": row["checkpoint_ns"], "checkpoint_id": row["checkpoint_id"]}
        rows = reading.walk(self._writes, (*_WRITE, *path), where=where, order=("task_id", "idx"), weigh=("value",))
        writes = writes_of([each async for each in rows], "value")
        return versions.checkpoint(row, place, document, parse_metadata(row["metadata"]), values, writes)

    def _open(self, form: Any, data: bytes) -> Any:
        if self._serde is not None:
            try:
                return self._serde.loads_typed((form, data))
            except Exception as exc:
                raise ValueError(f"cannot be decoded with this serde ({type(exc).__name__})") from exc
        if form != "msgpack":
            raise ValueError(f"has the format {str(form)[:40]!a}; give the serde that it was written with")
        try:
            return open_msgpack(data)
        except ValueError as exc:
            raise ValueError("is damaged: no msgpack") from exc

    def _encode(self, value: Any) -> Encoded:
        if self._serde is None:
            return encode(value)
        form, data = self._serde.dumps_typed(value)
        return Encoded(form, bytes(data))
