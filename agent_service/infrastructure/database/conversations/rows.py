"""What callers give and are given: records and entries, whose documents are opaque here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.validation import (
    MAX_IDENTIFIER,
    require_identifier,
    require_moment,
    require_text,
)

__all__ = ["MAX_LINE", "StoredEntry", "StoredRecord", "checked_entries", "checked_record", "require_scope"]

MAX_LINE: Final = 1_000_000
"""Most entries of one history that are read."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry of a history, after its parent (None: it is the first).

    :param data: JSON text, of a ``kind`` that tells its reader what it is.
    """

    entry_id: str
    parent_id: str | None
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A conversation besides its entries.

    :param head_id: the last entry of its history; None: it has none.
    :param scope: whose it is; None: it was not said.
    :param branches: the last entries of histories that it has left.
    :param revision: a token that is another one after each change.
    :param data: JSON text.
    :param updated_at: by which records are listed.
    """

    conversation_id: str
    head_id: str | None
    scope: str | None
    branches: tuple[str, ...]
    revision: str
    data: str
    updated_at: datetime


def checked_record(record: StoredRecord) -> StoredRecord:
    """Return a record that every engine can store.

    :raises SessionValueError: naming what it cannot.
    """
    require_identifier(record.conversation_id, "conversation_id")
    require_identifier(record.revision, "revision")
    require_scope(record.scope)
    if record.head_id is not None:
        require_identifier(record.head_id, "head_id")
    for branch in record.branches:
        require_identifier(branch, "branches")
    require_text(record.data, "the record")
    return replace(record, updated_at=require_moment(record.updated_at, "updated_at"))


def require_scope(scope: str | None) -> str | None:
    """Return a scope; "" is one like any other, and None is none.

    :raises SessionValueError: it is no text, or too long.
    """
    if scope is not None and len(require_text(scope, "scope")) > MAX_IDENTIFIER:
        raise SessionValueError(f"scope must have at most {MAX_IDENTIFIER} characters, has {len(scope)}: {scope!a:.80}")
    return scope


def checked_entries(entries: Iterable[StoredEntry]) -> Sequence[StoredEntry]:
    """Return entries that every engine can store, each after its parent if that is one of them.

    :raises SessionValueError: naming what is wrong.
    """
    listed = list(entries)
    place = {entry.entry_id: at for at, entry in enumerate(listed)}
    if len(place) < len(listed):
        raise SessionValueError("new_entries has an entry twice; give each an id of its own")
    for at, entry in enumerate(listed):
        require_identifier(entry.entry_id, f"the id of new_entries[{at}]")
        require_text(entry.data, f"new_entries[{at}]")
        if entry.parent_id is None:
            continue
        require_identifier(entry.parent_id, f"the parent_id of new_entries[{at}]")
        if place.get(entry.parent_id, -1) >= at:
            raise SessionValueError(f"new_entries[{at}] comes before its parent; give them in the order of the history")
    return listed
