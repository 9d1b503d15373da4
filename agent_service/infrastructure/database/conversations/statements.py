"""The statements that read and write conversations. All name the tenant first, as every key does."""

from typing import Any, Final

from sqlalchemy import BigInteger, Integer, bindparam, func, insert, literal, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from agent_service.infrastructure.database.models.conversation import ConversationEntryRow, ConversationRow

__all__ = [
    "ADD_ENTRIES",
    "ADD_RECORD",
    "CHANGE_RECORD",
    "FAMILIES_OF_ENTRIES",
    "FAMILY_OF_RECORD",
    "LINE",
    "LIST_RECORDS",
    "LIST_RECORDS_OF_SCOPE",
    "LOCK_RECORD",
    "READ_ENTRY",
    "READ_RECORD",
]

_records: Final[Any] = ConversationRow.__table__
_entries: Final[Any] = ConversationEntryRow.__table__

_COLUMNS: Final = ("head_id", "scope", "branches", "revision", "data", "updated_at")
_TENANT: Final[Any] = bindparam("tenant")
_DIALECTS: Final = ("postgresql", "sqlite")
_NOW: Final[dict[str, Any]] = {
    "postgresql": func.clock_timestamp(),
    "sqlite": literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')"),
}
_ENTRY: Final = (_entries.c.entry_id, _entries.c.parent_id, _entries.c.kind, _entries.c.data)
_ONE_RECORD: Final = (_records.c.tenant_id == _TENANT, _records.c.conversation_id == bindparam("conversation"))

_READ: Final = select(_records.c.conversation_id, *(_records.c[name] for name in _COLUMNS))
READ_RECORD: Final = _READ.where(*_ONE_RECORD)
LIST_RECORDS: Final = (
    _READ.where(_records.c.tenant_id == _TENANT)
    .order_by(_records.c.updated_at.desc(), _records.c.conversation_id)
    .limit(bindparam("limit", type_=BigInteger))
)
LIST_RECORDS_OF_SCOPE: Final = LIST_RECORDS.where(_records.c.scope == bindparam("scope"))

LOCK_RECORD: Final = (
    select(_records.c.family_id, _records.c.head_id, _records.c.revision)
    .where(*_ONE_RECORD)
    .with_for_update(key_share=True)
)
"""SQLite locks no rows; there the write lock is taken before."""

FAMILY_OF_RECORD: Final = select(_records.c.family_id).where(*_ONE_RECORD)

READ_ENTRY: Final = select(*_ENTRY).where(_entries.c.tenant_id == _TENANT, _entries.c.entry_id == bindparam("entry"))
FAMILIES_OF_ENTRIES: Final = select(_entries.c.entry_id, _entries.c.family_id).where(
    _entries.c.tenant_id == _TENANT, _entries.c.entry_id.in_(bindparam("entries", expanding=True))
)
ADD_ENTRIES: Final = insert(_entries)


def _line(dialect: str) -> Any:
    head = select(*_ENTRY, literal(1, Integer).label("place")).where(
        _entries.c.tenant_id == _TENANT, _entries.c.entry_id == bindparam("head")
    )
    line = head.cte("line", recursive=True)
    after = select(*_ENTRY).where(_entries.c.tenant_id == _TENANT, _entries.c.entry_id == line.c.parent_id)
    # PostgreSQL would otherwise read all entries of the tenant once and look through them at each step, where it takes
    # them for few: as long as the table was not analyzed, or if this tenant has many more than others.
    parent = after.limit(1).lateral("parent") if dialect == "postgresql" else None
    columns = _ENTRY if parent is None else tuple(parent.c)
    step = select(*columns, line.c.place + 1).where(line.c.place < bindparam("limit", type_=Integer))
    if parent is None:
        step = step.where(_entries.c.tenant_id == _TENANT, _entries.c.entry_id == line.c.parent_id)
    line = line.union_all(step.select_from(line, *(() if parent is None else (parent,))))
    return select(line.c.place, line.c.entry_id, line.c.parent_id, line.c.kind, line.c.data)


LINE: Final[dict[str, Any]] = {dialect: _line(dialect) for dialect in _DIALECTS}
"""Reads a history from its head towards its beginning, each entry by its key, and at most ``limit`` of them."""


def _add_record(dialect: str) -> Any:
    added: Any = (postgresql if dialect == "postgresql" else sqlite).insert(_records)
    given: dict[str, Any] = {name: bindparam(name) for name in ("tenant_id", "conversation_id", "family_id", *_COLUMNS)}
    return added.values({**given, "saved_at": _NOW[dialect]}).on_conflict_do_nothing()


def _change_record(dialect: str) -> Any:
    given: dict[str, Any] = {name: bindparam(f"new_{name}") for name in _COLUMNS}
    return update(_records).where(*_ONE_RECORD).values({**given, "saved_at": _NOW[dialect]})


ADD_RECORD: Final[dict[str, Any]] = {dialect: _add_record(dialect) for dialect in _DIALECTS}
"""Adds nothing where there is a record of that id."""
CHANGE_RECORD: Final[dict[str, Any]] = {dialect: _change_record(dialect) for dialect in _DIALECTS}
"""Changes a record that is locked; its values are called ``new_`` and the column."""
