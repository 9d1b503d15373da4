"""The package's tables as the database has them: with the names of one database, and plain column types."""

from typing import Any, Final

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Enum,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeDecorator, TypeEngine

from agent_service.infrastructure.database.models import Base
from agent_service.infrastructure.database.naming.names import MARK, TableNames

__all__ = ["copy_tables"]

_POSTGRES: Final = PGDialect()  # type: ignore[no-untyped-call]
_IN_A_CHECK: Final = {"literal_binds": True, "include_table": False}


def copy_tables(metadata: MetaData, names: TableNames, *, schema: str | None) -> None:
    """Add the package's tables to a MetaData, under these names and in this schema."""
    for table in Base.metadata.sorted_tables:
        parts: list[Any] = [Column(each.name, _plain(each.type, names), nullable=each.nullable) for each in table.c]
        parts += [_constraint(each, names, schema) for each in table.constraints]
        copied = Table(_local(table.name, names), metadata, *parts, schema=schema)
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            columns = [copied.c[each.name] for each in index.columns]
            Index(_name(index.name, names), *columns, unique=index.unique, **index.dialect_kwargs)


def _constraint(constraint: Any, names: TableNames, schema: str | None) -> Any:
    name = _name(constraint.name, names)
    if isinstance(constraint, PrimaryKeyConstraint):
        return PrimaryKeyConstraint(*constraint.columns.keys(), name=name)
    if isinstance(constraint, ForeignKeyConstraint):
        target = f"{'' if schema is None else f'{schema}.'}{_local(constraint.referred_table.name, names)}"
        theirs = [f"{target}.{each.column.name}" for each in constraint.elements]
        return ForeignKeyConstraint(constraint.column_keys, theirs, name=name, ondelete=constraint.ondelete)
    return CheckConstraint(str(constraint.sqltext.compile(compile_kwargs=_IN_A_CHECK)), name=name)


def _plain(kind: TypeEngine[Any], names: TableNames) -> TypeEngine[Any]:
    """Return a type of the database's own, which a generated revision can write down without importing anything."""
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance if names.schema is None else kind.load_dialect_impl(_POSTGRES)
    if isinstance(kind, JSON):
        return JSONB() if isinstance(kind, JSONB) else JSON()
    return String(kind.length) if isinstance(kind, Enum) else kind


def _local(name: str, names: TableNames) -> str:
    return names.local(name.removeprefix(MARK))


def _name(name: Any, names: TableNames) -> conv:
    # Whatever naming convention the MetaData has, this is the name.
    return conv(_local(str(name), names))
