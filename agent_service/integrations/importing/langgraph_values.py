"""What LangGraph's savers store of a checkpoint, made into what this package's saver stores of it."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.changes import Encoded, NewCheckpoint
from agent_service.infrastructure.database.foreign import Row
from agent_service.integrations.importing.conversations import Unreadable, UnreadableError
from agent_service.integrations.importing.digests import digest_of
from agent_service.integrations.importing.threads import (
    SourceCheckpoint,
    SourceWrite,
    digest_of_checkpoint,
)

try:
    import ormsgpack
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    from agent_service.integrations.langgraph.saver_encoding import searchable, version_text
except ImportError as exc:
    raise ImportError('import_langgraph needs langgraph: pip install "agent-service[langgraph]"') from exc

__all__ = ["SENDS", "Coding", "Versions", "parse_metadata", "version_text", "writes_of"]

SENDS: Final = "__pregel_tasks"
"""The channel of what tasks are to be sent."""
_COUNTERS: Final = "counters_since_delta_snapshot"

_SERDE: Final = JsonPlusSerializer()
_SETS: Final = frozenset((("builtins", "set"), ("builtins", "frozenset")))
_SET: Final = b"set"
"""What stands in the bytes of every value that holds a set."""


class Coding:
    """How values are encoded, and which encodings are of equal values.

    :param serde: the serializer of the source, which is the target's too; None: LangGraph's default, with which nothing
        has to be made into objects.
    """

    def __init__(self, serde: SerializerProtocol | None) -> None:
        self._serde = serde

    def encode(self, value: Any) -> Encoded:
        """Encode a plain value, or one that :meth:`open` returned.

        :raises UnreadableError: it cannot be encoded.
        """
        try:
            form, data = (self._serde or _SERDE).dumps_typed(value)
        except Exception as exc:
            raise UnreadableError("holds a value that cannot be encoded, such as a number that is too large") from exc
        return Encoded(form, bytes(data))

    def open(self, form: Any, data: bytes) -> Any:
        """Decode a value; without a serializer only as far as plain values go: of an object the bytes are kept.

        :raises UnreadableError: it is damaged, or of a format that cannot be opened.
        """
        try:
            if self._serde is not None:
                return self._serde.loads_typed((form, data))
            if form == "null":
                return None
            if form in {"bytes", "bytearray"}:
                return data
            if form == "msgpack":
                return _unpack(data, ormsgpack.Ext)
        except Exception as exc:
            raise UnreadableError(f"cannot be decoded ({type(exc).__name__}): damaged, or of another serde") from exc
        raise UnreadableError(f"has the format {str(form)[:40]!a}; give the serde that it was written with")

    def digest(self, value: Encoded) -> bytes:
        """Return a digest that equal values share: sets, whose order is any, and what was encrypted more than once.

        :raises UnreadableError: it cannot be opened, and has to be.
        """
        if self._serde is not None:
            form, data = _SERDE.dumps_typed(self.open(*value))
            value = Encoded(form, bytes(data))
        if value.format == "msgpack" and _SET in value.value:
            return digest_of(value.format, repr(_in_order(_unpack(value.value, _Opaque))))
        return digest_of(*value)


class _Opaque(NamedTuple):
    """The bytes of an object."""

    tag: int
    data: bytes


def _unpack(data: bytes, hook: Callable[[int, bytes], Any]) -> Any:
    return ormsgpack.unpackb(data, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)


def _in_order(value: Any) -> Any:
    """Return a value whose ``repr`` is the same for equal values."""
    if isinstance(value, dict):
        return [(repr(_in_order(key)), _in_order(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [_in_order(each) for each in value]
    if not isinstance(value, _Opaque):
        return value
    try:
        inner = _unpack(value.data, _Opaque)
    except ValueError:
        return (value.tag, value.data)
    if isinstance(inner, list) and len(inner) == 3 and tuple(inner[:2]) in _SETS and isinstance(inner[2], list):
        return (value.tag, inner[:2], sorted(repr(_in_order(each)) for each in inner[2]))
    return (value.tag, _in_order(inner))


def parse_metadata(stored: Any) -> dict[str, Any]:
    """Return the metadata of a checkpoint, which savers store as JSON.

    :raises UnreadableError: it is no JSON object.
    """
    if stored is None:
        return {}
    text = stored.decode("utf-8") if isinstance(stored, bytes) else stored
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as exc:
        raise UnreadableError("metadata is no JSON that can be read") from exc
    if not isinstance(found, dict):
        raise UnreadableError("metadata is no JSON object")
    return found


def writes_of(rows: list[Row], column: str) -> tuple[SourceWrite, ...]:
    """Return the writes after a checkpoint in the order in which a run applies them.

    :param column: which column has the values.
    :raises UnreadableError: one has no format.
    """
    found = []
    for row in rows:
        if not isinstance(row["type"], str):
            raise UnreadableError("a write has no type")
        value = Encoded(row["type"], bytes(row[column] or b""))
        task_path = row.get("task_path") or ""
        found.append(SourceWrite(row["task_id"], task_path, row["idx"], row["channel"], value))
    return tuple(sorted(found, key=lambda each: each.order))


class Versions:
    """The values of a thread's channels by version, each of which is stored once."""

    def __init__(self, thread_id: str, coding: Coding) -> None:
        self._thread_id = thread_id
        self._coding = coding
        self._digests: dict[tuple[str, str, str], bytes] = {}

    def knows(self, namespace: str, channel: str, version: str) -> bool:
        """Whether a checkpoint before had a value of this version."""
        return (namespace, channel, version) in self._digests

    def checkpoint(
        self,
        row: Row,
        place: str,
        *,
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
                digest = self._digests[key] if value is None else self._coding.digest(value)
                if value is not None and key not in self._digests:
                    self._digests[key] = digest
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
        return SourceCheckpoint(place, change, digest_of_checkpoint(change, digests, self._coding.digest), writes)

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
            document=self._coding.encode(dict(document)),
            metadata=self._coding.encode(dict(metadata)),
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
