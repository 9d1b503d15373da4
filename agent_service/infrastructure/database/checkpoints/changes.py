"""What is written to a thread: a checkpoint with the values that are new in it, or writes of a task.

Both may be repeated: a checkpoint and a value replace what has their key, of a task's writes the first one stays, and
of its special writes (a place below 0) the last one counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.channels import MAX_CHANNEL, index_name, write_versions
from agent_service.infrastructure.database.values.validation import require_text

__all__ = [
    "Change",
    "Encoded",
    "NewCheckpoint",
    "NewWrites",
    "Write",
    "require_checkpoint_id",
    "require_namespace",
    "require_thread_id",
]

_BYTES: Final = {"thread_id": 1000, "namespace": 800, "run_id": 1000, "parent_id": 255}
"""Longest names in UTF-8, where it is not 255: what an index entry of PostgreSQL has room for, with a tenant's."""
_LARGEST: Final = 1_000_000_000
"""Most bytes of one value; PostgreSQL's limit is 1 GiB a row, and SQLite's about as much."""
_OVERHEAD: Final = 300
"""Bytes that a row takes beside its values, about."""


class Encoded(NamedTuple):
    """A value as a framework encoded it: the name of the format, and the bytes."""

    format: str
    value: bytes


class Write(NamedTuple):
    """One write of a task. ``place`` is its place among them; below 0 is a special write, which replaces another."""

    place: int
    channel: str
    value: Encoded


@dataclass(frozen=True, slots=True, eq=False)
class NewCheckpoint:
    """A checkpoint and the values that are new in it.

    :param versions: the version of each channel that the checkpoint consists of; names of any length.
    :param values: the values of those channels that have a new version; a channel without one has no value.
    :param replayed: channels whose values are rebuilt from the writes of earlier checkpoints, where this one has none.
    :param facts: texts of the metadata by which it can be found.
    :param run_id: the run that made it.
    :param user_id: whose thread it is; it stays the user of the first checkpoint that names one.
    :raises SessionValueError: an argument cannot be stored; it is named.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str | None
    document: Encoded
    metadata: Encoded
    versions: Mapping[str, str]
    values: Mapping[str, Encoded]
    replayed: Sequence[str] = ()
    facts: Mapping[str, str] | None = None
    run_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        require_thread_id(self.thread_id)
        require_namespace(self.namespace)
        require_checkpoint_id(self.checkpoint_id)
        _require_values([self.document, self.metadata, *self.values.values()])
        for name in ("parent_id", "run_id"):
            given = getattr(self, name)
            if given is not None:
                _require_name(given, name)
        for channel, version in self.versions.items():
            _require_channel(channel)
            _require_name(version, "version", least=0)
        for channel in self.replayed:
            if index_name(channel) != channel:
                raise SessionValueError(
                    f"replayed has a channel of {len(channel.encode())} bytes; at most {MAX_CHANNEL} are possible "
                    f"where values are rebuilt: {channel!a:.80}"
                )
        for name, fact in (self.facts or {}).items():
            require_text(name, "facts")
            require_text(fact, f"facts[{name!r:.80}]")
        missing = next((each for each in self.values if each not in self.versions), None)
        if missing is not None:
            raise SessionValueError(f"values has channel {missing!r:.80}, which has no version; add it to versions")

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        encoded = (self.document, self.metadata, *self.values.values())
        return sum(len(each.value) + _OVERHEAD for each in encoded)

    def row(self) -> tuple[Any, ...]:
        """Return the columns that do not belong to its key, in the order of the table."""
        return (
            self.parent_id,
            write_versions(self.versions),
            json.dumps(sorted(self.replayed), ensure_ascii=False) if self.replayed else None,
            json.dumps(self.facts or {}, ensure_ascii=False),
            self.run_id,
            *self.document,
            *self.metadata,
        )


@dataclass(frozen=True, slots=True, eq=False)
class NewWrites:
    """What a task wrote after a checkpoint, which need not be stored yet.

    :raises SessionValueError: an argument cannot be stored; it is named.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: Sequence[Write]
    user_id: str | None = None

    def __post_init__(self) -> None:
        require_thread_id(self.thread_id)
        require_namespace(self.namespace)
        require_checkpoint_id(self.checkpoint_id)
        _require_name(self.task_id, "task_id")
        require_text(self.task_path, "task_path")
        _require_values([each.value for each in self.writes])
        for write in self.writes:
            _require_channel(write.channel)

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return sum(len(write.value.value) + _OVERHEAD for write in self.writes)


Change: TypeAlias = NewCheckpoint | NewWrites


def require_thread_id(value: Any) -> str:
    """Return the text that names a thread."""
    return _require_name(value, "thread_id")


def require_namespace(value: Any) -> str:
    """Return the text that names a namespace of a thread; "" is that of the graph itself."""
    return _require_name(value, "namespace", least=0)


def require_checkpoint_id(value: Any) -> str:
    """Return the text that names a checkpoint."""
    return _require_name(value, "checkpoint_id")


def _require_name(value: Any, name: str, *, least: int = 1) -> str:
    text, most = require_text(value, name), _BYTES.get(name, 255)
    if len(text) < least:
        raise SessionValueError(f"{name} must not be empty")
    if len(text) * 4 > most and len(text.encode()) > most:
        raise SessionValueError(
            f"{name} must have at most {most} bytes in UTF-8, has {len(text.encode())}: {text!a:.80}"
        )
    return text


def _require_channel(value: Any) -> None:
    if not require_text(value, "channel"):
        raise SessionValueError("channel must not be empty")


def _require_values(values: Sequence[Encoded]) -> None:
    for each in values:
        require_text(each.format, "format")
        if len(each.value) > _LARGEST:
            raise SessionValueError(f"a value has {len(each.value)} bytes; at most {_LARGEST} can be stored")
