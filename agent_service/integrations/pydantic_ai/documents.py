"""Records and entries of Pydantic AI as rows, and back. A message is what ``ModelMessagesTypeAdapter`` writes."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_ai import DeferredToolRequests
from pydantic_ai.conversation_store import ConversationEntry, ConversationRecord
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_ai.usage import RunUsage
from pydantic_core import PydanticSerializationError

from agent_service.core.errors import DatabaseError, SessionValueError
from agent_service.infrastructure.database.conversations.rows import StoredEntry, StoredRecord

__all__ = ["entries_of", "record_of", "stored_entry", "stored_record"]

T = TypeVar("T")

_MESSAGE: Final = "message"


class _Carried(BaseModel):
    """What a record carries besides what is looked up. Bytes are base64, as they are in messages."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    format_version: Literal[1] = 1
    usage: RunUsage
    deferred_tool_requests: DeferredToolRequests | None = None
    forked_from: str | None = None
    forked_at: str | None = None


def stored_record(record: ConversationRecord) -> StoredRecord:
    """Return the row of a record.

    :raises SessionValueError: it holds what has no JSON form, or one that cannot be read again.
    """
    carried = _Carried.model_construct(
        format_version=record.format_version,
        usage=record.usage,
        deferred_tool_requests=record.deferred_tool_requests,
        forked_from=record.forked_from,
        forked_at=record.forked_at,
    )
    return StoredRecord(
        conversation_id=record.conversation_id,
        head_id=record.head_id,
        scope=record.scope,
        branches=tuple(record.branches),
        revision=record.revision,
        data=_written(
            "usage or deferred_tool_requests",
            lambda: carried.model_dump_json(warnings=False),
            _Carried.model_validate_json,
        ),
        updated_at=record.updated_at,
    )


def record_of(row: StoredRecord) -> ConversationRecord:
    """Return the record of a row.

    :raises DatabaseError: a version of Pydantic AI wrote it that this one cannot read.
    """
    carried = _read(f"conversation {row.conversation_id!r:.80}", lambda: _Carried.model_validate_json(row.data))
    return ConversationRecord(
        conversation_id=row.conversation_id,
        head_id=row.head_id,
        usage=carried.usage,
        deferred_tool_requests=carried.deferred_tool_requests,
        scope=row.scope,
        forked_from=carried.forked_from,
        forked_at=carried.forked_at,
        branches=list(row.branches),
        revision=row.revision,
        updated_at=row.updated_at,
        format_version=carried.format_version,
    )


def stored_entry(entry: ConversationEntry) -> StoredEntry:
    """Return the row of an entry.

    :raises SessionValueError: its message holds what has no JSON form, or one that cannot be read again.
    """

    def write() -> str:
        return ModelMessagesTypeAdapter.dump_json([entry.message], warnings=False).decode()

    written = _written(f"the message of entry {entry.id!r:.80}", write, ModelMessagesTypeAdapter.validate_json)
    return StoredEntry(entry.id, entry.parent_id, entry.kind, written[1:-1])


def entries_of(rows: Sequence[StoredEntry]) -> list[ConversationEntry]:
    """Return the entries of rows; all are read at once, which costs a fraction of reading one by one.

    :raises DatabaseError: a version of Pydantic AI wrote one that this one cannot read.
    """
    if unknown := {row.kind for row in rows} - {_MESSAGE}:
        raise DatabaseError(f"entries of the kind {min(unknown)!r:.80} need another version of Pydantic AI; upgrade it")
    text = f"[{','.join(row.data for row in rows)}]"
    messages = _read("messages of a conversation", lambda: ModelMessagesTypeAdapter.validate_json(text))
    pairs = zip(rows, messages, strict=True)
    return [ConversationEntry(id=row.entry_id, parent_id=row.parent_id, message=message) for row, message in pairs]


def _written(what: str, write: Callable[[], str], read: Callable[[str], object]) -> str:
    """Return what was written once it can be read: a number of 5,000 digits, for one, is JSON that no reader takes.

    Without warnings, which would show values; those of the wrong type are found when they are read.
    """
    try:
        written = write()
    except PydanticSerializationError as exc:
        raise SessionValueError(f"{what} cannot be written as JSON, so nothing was stored: {exc!s:.200}") from exc
    try:
        read(written)
    except ValidationError as exc:
        # Not chained: the error of pydantic shows what was to be stored.
        raise SessionValueError(
            f"{what} could not be read again, so nothing was stored ({_fault(exc)}); mend or remove that value"
        ) from None
    return written


def _read(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValidationError as exc:
        # Not chained: the error of pydantic shows what is stored.
        raise DatabaseError(
            f"{what} cannot be read by this version of Pydantic AI ({_fault(exc)}); use the version "
            "that wrote it, or a later one"
        ) from None


def _fault(exc: ValidationError) -> str:
    """Return the kind and the place of the first error, without what is there."""
    first: Any = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(each) for each in first["loc"])
    return f"{first['type']} at {place:.200}" if place else str(first["type"])
