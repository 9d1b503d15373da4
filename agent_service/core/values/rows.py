"""Rows of classes that SQLAlchemy maps: SQLModel tables, and dataclasses of ``MappedAsDataclass``.

They are read through their own attributes, so SQLAlchemy is not imported here. A row comes back with its columns, and
detached if it has an identity in a database. Data that only a session can load is refused.
"""

from typing import Any

from agent_service.core.values.refusal import NotWritable

__all__ = ["STATE", "give_identity", "has_identity", "is_mapped", "new_row"]

STATE = "_sa_instance_state"
"""The attribute in which SQLAlchemy keeps the state of a row."""
_REMEDY = "return a model or dataclass that is no table, made from the row"


def is_mapped(cls: type) -> bool:
    """Return whether instances of a class are rows."""
    manager = getattr(cls, "_sa_class_manager", None)
    return manager is not None and getattr(manager, "is_mapped", False)


def has_identity(row: Any) -> bool:
    """Return whether a row was loaded from a database, or stored in one.

    :raises NotWritable: if the row has more than its columns, or less.
    """
    mapper, state, values = type(row).__mapper__, vars(row)[STATE], vars(row)
    loaded = [name for name in mapper.relationships.keys() if values.get(name) not in (None, [], set(), {})]  # noqa: SIM118
    if loaded:
        raise NotWritable(f"its relationship {loaded[0]} holds rows, which SQLAlchemy keeps together; {_REMEDY}")
    if state.key is None:
        return False
    missing = [name for name in mapper.column_attrs.keys() if name not in values]  # noqa: SIM118
    if missing:
        raise NotWritable(f"its column {missing[0]} is not loaded, and only a session can load it; {_REMEDY}")
    if state.modified:
        raise NotWritable(f"it has changes that were not flushed to the database; flush them, or {_REMEDY}")
    return True


def new_row(cls: Any) -> Any:
    """Make a row without columns, bypassing the constructor, as a session does when it loads one."""
    return cls.__mapper__.class_manager.new_instance()


def give_identity(row: Any) -> None:
    """Make a row detached: a session it is added to treats it as the one in the database."""
    vars(row)[STATE].key = type(row).__mapper__.identity_key_from_instance(row)
