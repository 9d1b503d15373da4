"""What LangGraph's savers store of a checkpoint, made into what this package's saver stores of it."""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.changes import Encoded, NewCheckpoint
from agent_service.infrastructure.database.foreign import Row
from agent_service.integrations.importing.conversations import Unreadable
from agent_service.integrations.importing.threads import (
    SourceCheckpoint,
    SourceWrite,
    digest_of_checkpoint,
    digest_of_value,
)

try:
    import ormsgpack
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    from agent_service.integrations.langgraph.saver_encoding import searchable, version_text
except ImportError as exc:
    raise ImportError('import_langgraph needs langgraph: pip install "agent-service[langgraph]"') from exc

__all__ = ["SENDS", "Versions", "encode", "encode_list", "open_msgpack", "parse_metadata", "unpacked", "writes_of"]

SENDS: Final = "__pregel_tasks"
"""The channel of what tasks are to be sent."""
_COUNTERS: Final = "counters_since_delta_snapshot"

_SERDE: Final = JsonPlusSerializer()


def encode(value: Any) -> Encoded:
    """Encode a plain value, or one of :func:`open_msgpack`.

    :raises ValueError: it cannot be encoded.
    """
    try:
        form, data = _SERDE.dumps_typed(value)
    except (ValueError, TypeError) as exc:
        raise ValueError("holds a number that is too large to be encoded, or nests too deep") from exc
    return Encoded(form, bytes(data))


def open_msgpack(data: bytes) -> Any:
    """Decode as far as plain values go: what stands for an object stays the bytes that it is.

    :raises ValueError: it is damaged.
    """
    return ormsgpack.unpackb(data, ext_hook=ormsgpack.Ext, option=ormsgpack.OPT_NON_STR_KEYS)


def unpacked(value: Encoded) -> Any:
    """Return a value, as :func:`open_msgpack` does.

    :raises ValueError: it is damaged, or of a format that cannot be opened without making objects.
    """
    if value.format == "null":
        return None
    if value.format in {"bytes", "bytearray"}:
        return value.value
    if value.format != "msgpack":
        raise ValueError(f"has the format {value.format[:40]!a}, which only its serializer reads")
    return open_msgpack(value.value)


def encode_list(values: list[Encoded]) -> Encoded:
    """Encode a list of values that are encoded already.

    :raises ValueError: one of them cannot be opened.
    """
    return encode([unpacked(each) for each in values])


def parse_metadata(stored: Any) -> dict[str, Any]:
    """Return the metadata of a checkpoint, which savers store as JSON.

    :raises ValueError: it is no JSON object.
    """
    if stored is None:
        return {}
    text = stored.decode("utf-8") if isinstance(stored, bytes) else stored
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as exc:
        raise ValueError("metadata is no JSON that can be read") from exc
    if not isinstance(found, dict):
        raise ValueError("metadata is no JSON object")
    return found


def writes_of(rows: list[Row], column: str) -> tuple[SourceWrite, ...]:
    """Return the writes after a checkpoint in the order in which a run applies them.

    :param column: which column has the values.
    :raises ValueError: one has no format.
    """
    found = []
    for row in rows:
        if not isinstance(row["type"], str):
            raise ValueError("a write has no type")
        value = Encoded(row["type"], bytes(row[column] or b""))
        task_path = row.get("task_path") or ""
        found.append(SourceWrite(row["task_id"], task_path, row["idx"], row["channel"], value))
    return tuple(sorted(found, key=lambda each: each.order))


class Versions:
    """The values of a thread's channels by version, each of which is stored once.

    :param thread_id: the thread.
    """

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._digests: dict[tuple[str, str, str], bytes] = {}

    def knows(self, namespace: str, channel: str, version: str) -> bool:
        """Whether a checkpoint before had a value of this version."""
        return (namespace, channel, version) in self._digests

    def checkpoint(
        self,
        row: Row,
        place: str,
        document: Mapping[str, Any],
        metadata: Mapping[str, Any],
        values: Mapping[str, Encoded | None],
        writes: tuple[SourceWrite, ...],
    ) -> SourceCheckpoint | Unreadable:
        """Return a checkpoint as it is to be stored.

        :param document: the checkpoint without values.
        :param values: of its channels; None: the value that :meth:`knows` says is known.
        """
        namespace, checkpoint_id = row["checkpoint_ns"], row["checkpoint_id"]
        try:
            versions = {name: version_text(each) for name, each in (document.get("channel_versions") or {}).items()}
            # A value without a version belongs to this checkpoint alone.
            versions |= {channel: f"~{checkpoint_id}" for channel in values if channel not in versions}
            new: dict[str, Encoded] = {}
            digests: list[tuple[str, bytes]] = []
            for channel, value in values.items():
                key = (namespace, channel, versions[channel])
                digest = self._digests[key] if value is None else digest_of_value(value)
                if value is not None and self._digests.setdefault(key, digest) == digest:
                    new[channel] = value
                elif self._digests[key] != digest:
                    return Unreadable(
                        place,
                        f"channel {channel!a:.80} has another value here than an earlier checkpoint has at the same "
                        "version, which no saver that stores values by version can keep apart",
                    )
                digests.append((channel, digest))
            change = self._change(row, document, metadata, versions, new)
        except SessionValueError as exc:
            return Unreadable(place, f"cannot be stored: {str(exc).partition(', got ')[0].partition(': ')[0]}")
        except ValueError as exc:
            return Unreadable(place, str(exc))
        digest = digest_of_checkpoint(change.parent_id, change.document, change.metadata, digests)
        return SourceCheckpoint(place, change, digest, writes)

    def _change(
        self,
        row: Row,
        document: Mapping[str, Any],
        metadata: Mapping[str, Any],
        versions: Mapping[str, str],
        values: Mapping[str, Encoded],
    ) -> NewCheckpoint:
        run_id, user_id = metadata.get("run_id"), metadata.get("user_id")
        return NewCheckpoint(
            thread_id=self._thread_id,
            namespace=row["checkpoint_ns"],
            checkpoint_id=row["checkpoint_id"],
            parent_id=row["parent_checkpoint_id"] or None,
            document=encode(dict(document)),
            metadata=encode(dict(metadata)),
            versions=versions,
            values=values,
            replayed=[channel for channel in metadata.get(_COUNTERS) or () if channel in versions],
            facts={name: value for name, value in metadata.items() if searchable(name) and searchable(value)},
            run_id=run_id if isinstance(run_id, str) else None,
            user_id=_user(user_id),
        )


def _user(given: Any) -> str | None:
    if isinstance(given, bool) or not isinstance(given, str | int | UUID) or given == "" or len(str(given)) > 255:
        return None
    return str(given)
