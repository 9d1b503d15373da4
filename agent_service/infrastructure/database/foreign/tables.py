"""Tables of other libraries, as the database describes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, column, inspect, table
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.types import NullType

from agent_service.core.errors import ConfigurationError

__all__ = ["SourceTable", "find_table"]

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table of the source, and what its columns are called."""

    name: str
    columns: frozenset[str]
    clause: Any

    def value(self, name: str) -> Any:
        """Return the expression that reads a column: documents as text, and on SQLite all as it is stored."""
        found = self.clause.c[name]
        return cast_to(found, Text) if isinstance(found.type, JSON | JSONB) else found


def find_table(connection: Connection, name: str, schema: str | None) -> SourceTable:
    """Look a table up.

    :raises ConfigurationError: there is none of this name.
    """
    inspector = inspect(connection)
    try:
        described = inspector.get_columns(name, schema=schema)
    except NoSuchTableError:
        known = sorted(inspector.get_table_names(schema=schema))
        raise ConfigurationError(
            f"the source has no table {name!r}{f' in the schema {schema!r}' if schema else ''}; it has {_listed(known)}"
        ) from None
    postgres = connection.dialect.name == "postgresql"
    columns = [
        # SQLite compares what is stored, and a type would store moments otherwise than the other library did.
        column(each["name"], each["type"] if postgres else NullType())
        for each in described
    ]
    return SourceTable(name, frozenset(each["name"] for each in described), table(name, *columns, schema=schema))


def _listed(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    if not listed:
        return "none at all"
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")
