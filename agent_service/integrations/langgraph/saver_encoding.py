"""Checkpoints and writes of LangGraph as rows, and back. Values are bytes that the saver's serializer makes."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.infrastructure.database.checkpoints.ancestry import History
from agent_service.infrastructure.database.checkpoints.changes import Encoded, NewCheckpoint, NewWrites, Write
from agent_service.infrastructure.database.checkpoints.reading import StoredCheckpoint, StoredWrite
from agent_service.infrastructure.database.values.validation import require_identifier
from agent_service.integrations.langgraph.saver_config import Address

__all__ = ["Codec", "searchable", "version_text"]

_PICKLE: Final = "pickle"
_COUNTERS: Final = "counters_since_delta_snapshot"
"""Metadata that names the DeltaChannels of a checkpoint whose values it does not hold."""
_LONGEST_FACT: Final = 1000


class Codec:
    """Encodes and decodes with one serializer. Nothing that is pickled is written or read."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde

    def new_checkpoint(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> NewCheckpoint:
        """Return the row of a checkpoint; ``config`` names its parent.

        :raises SessionValueError: something cannot be stored; it is named.
        """
        address, versions = Address.of(config), checkpoint["channel_versions"]
        document = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        merged: dict[str, Any] = dict(get_checkpoint_metadata(config, metadata))
        values = checkpoint["channel_values"]
        run_id = merged.get("run_id")
        return NewCheckpoint(
            thread_id=address.thread_id,
            namespace=address.namespace,
            checkpoint_id=checkpoint["id"],
            parent_id=address.checkpoint_id,
            document=self.dump(document, "checkpoint"),
            metadata=self.dump(merged, "metadata"),
            versions={channel: version_text(version) for channel, version in versions.items()},
            values={
                channel: self.dump(values[channel], f"channel {channel!r:.80}")
                for channel, version in new_versions.items()
                if channel in values and versions.get(channel) == version
            },
            replayed=[channel for channel in merged.get(_COUNTERS) or () if channel in versions],
            facts={name: value for name, value in merged.items() if searchable(name) and searchable(value)},
            run_id=str(run_id) if isinstance(run_id, str | UUID) else None,
            user_id=_user_of(config, merged),
        )

    def new_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> NewWrites:
        """Return the rows of a task's writes.

        :raises SessionValueError: something cannot be stored; it is named.
        """
        address = Address.of(config)
        if address.checkpoint_id is None:
            raise SessionValueError(
                "config has no checkpoint_id, so it is not clear after which checkpoint the task wrote; give the "
                "config that put returned"
            )
        rows = [
            Write(WRITES_IDX_MAP.get(channel, place), channel, self.dump(value, f"a write to {channel!r:.80}"))
            for place, (channel, value) in enumerate(writes)
        ]
        user = _user_of(config, config.get("metadata") or {})
        place = (address.thread_id, address.namespace, address.checkpoint_id)
        return NewWrites(*place, str(task_id), task_path, rows, user)

    def tuple_of(self, stored: StoredCheckpoint, metadata: CheckpointMetadata | None = None) -> CheckpointTuple:
        """Return a checkpoint as LangGraph knows it.

        :param metadata: what :meth:`metadata_of` returned for it.
        :raises DatabaseError: it cannot be decoded.
        """
        address = Address(stored.thread_id, stored.namespace, stored.checkpoint_id)
        document = self.load(stored.document, "checkpoint")
        values = {channel: self.load(value, f"channel {channel!r:.80}") for channel, value in stored.values.items()}
        parent = None if stored.parent_id is None else address.config(stored.parent_id)
        return CheckpointTuple(
            config=address.config(stored.checkpoint_id),
            checkpoint=cast("Checkpoint", {**document, "channel_values": values}),
            metadata=self.metadata_of(stored) if metadata is None else metadata,
            parent_config=parent,
            pending_writes=[self._write_of(write) for write in stored.writes],
        )

    def metadata_of(self, stored: StoredCheckpoint) -> CheckpointMetadata:
        """Return the metadata of a checkpoint."""
        return cast("CheckpointMetadata", self.load(stored.metadata, "metadata"))

    def history_of(self, channel: str, history: History) -> DeltaChannelHistory:
        """Return what a channel is rebuilt from, as LangGraph knows it."""
        found: DeltaChannelHistory = {"writes": [self._write_of(write) for write in history.writes]}
        if history.seed is not None:
            found["seed"] = self.load(history.seed, f"channel {channel!r:.80}")
        return found

    def dump(self, value: Any, what: str) -> Encoded:
        """Encode a value.

        :raises SessionValueError: the serializer cannot encode it, or only by pickling it.
        """
        try:
            form, data = self._serde.dumps_typed(value)
        except Exception as exc:
            raise SessionValueError(
                f"{what} cannot be encoded ({type(exc).__name__}): {type(value).__name__} is nothing that "
                f"{type(self._serde).__name__} knows; store plain data, pydantic models or dataclasses"
            ) from exc
        if _is_pickle(form):
            raise SessionValueError(f"{what} would be pickled, which is never stored; use a serializer without pickle")
        return Encoded(form, bytes(data))

    def load(self, encoded: Encoded, what: str) -> Any:
        """Decode a value.

        :raises DatabaseError: the serializer cannot decode it, or it is pickled.
        """
        if _is_pickle(encoded.format):
            raise DatabaseError(f"{what} is pickled, which is never read; store it again without pickle")
        try:
            return self._serde.loads_typed((encoded.format, encoded.value))
        except Exception as exc:
            raise DatabaseError(
                f"{what} cannot be decoded ({type(exc).__name__}): its format is {encoded.format!r:.80}; read it "
                "with the serializer, and the key, that it was stored with"
            ) from exc

    def _write_of(self, write: StoredWrite) -> tuple[str, str, Any]:
        return (write.task_id, write.channel, self.load(write.value, f"a write to {write.channel!r:.80}"))


def version_text(version: Any) -> str:
    """Return the version of a channel as text; numbers that are equal have the same.

    :raises SessionValueError: it is no text and no finite number.
    """
    if isinstance(version, str):
        return version
    if isinstance(version, int | float) and not isinstance(version, bool) and math.isfinite(version):
        return str(int(version)) if version == int(version) else repr(version)
    raise SessionValueError(f"the version of a channel must be a text or a number, got {version!r:.80}")


def searchable(value: Any) -> bool:
    """Whether a name or value of metadata is a text that the database can compare."""
    if not isinstance(value, str) or len(value) > _LONGEST_FACT or "\x00" in value:
        return False
    # Lone surrogates are kept in the metadata, but no database compares them.
    return json.dumps(value, ensure_ascii=False).isascii() or not any("\ud800" <= each <= "\udfff" for each in value)


def _is_pickle(form: str) -> bool:
    return form.partition("+")[0] == _PICKLE


def _user_of(config: RunnableConfig, metadata: Mapping[str, Any]) -> str | None:
    user = (config.get("configurable") or {}).get("user_id", metadata.get("user_id"))
    if isinstance(user, bool) or not isinstance(user, str | UUID | int) or user == "":
        return None
    return require_identifier(str(user), "user_id")
