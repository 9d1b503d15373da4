"""Finding the key-value table that a user named, or creating it."""

from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, func, select
from sqlalchemy.schema import CreateTable

from agent_service.core.errors import ConfigurationError
from agent_service.core.sql_names import LONGEST_NAME
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.database.naming.catalog import MADE, has_table, key_value_places, make_schema
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.schema.documented_table import RowOf, is_documented, take_over

__all__ = ["find_or_make"]


def find_or_make(connection: Connection, name: str, row_of: RowOf) -> Table:
    """Return the table, in the connection's transaction.

    :param row_of: returns the columns of a row, for the rows of a table that is taken over.
    :raises ConfigurationError: with its prefix the name is too long, or it is not clear which table is meant.
    """
    naming = naming_of(connection.engine)
    names = naming.of(connection)
    full = f"{naming.table_prefix or ''}{name}"
    if len(full.encode()) > LONGEST_NAME:
        raise ConfigurationError(f"table {full!r:.100} has {len(full.encode())} bytes; at most {LONGEST_NAME} are kept")
    table = _table(full, names.schema)
    if names.schema is None:
        if not has_table(connection, None, full):
            # Another process may have made it since.
            connection.execute(CreateTable(table, if_not_exists=True))
        elif is_documented(connection, full):
            take_over(connection, full, lambda: _created(connection, table), row_of)
        else:
            _require_keys_and_values(connection, None, full)
        return table
    # CREATE ... IF NOT EXISTS is not safe against another one at the same moment.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(names.schema))))
    if has_table(connection, names.schema, full):
        _require_keys_and_values(connection, names.schema, full)
        return table
    earlier = [] if naming.chosen else key_value_places(connection, full)
    if len(earlier) > 1:
        raise ConfigurationError(f"table {full!r} is in several schemas: {', '.join(earlier)}; name one in DB_SCHEMA")
    if earlier:
        return _table(full, earlier[0])
    make_schema(connection, names.schema)
    connection.execute(CreateTable(table))
    connection.exec_driver_sql(
        f"COMMENT ON TABLE {connection.dialect.identifier_preparer.format_table(table)} IS '{MADE}'"
    )
    return table


def _created(connection: Connection, table: Table) -> Table:
    table.create(connection)
    return table


def _require_keys_and_values(connection: Connection, schema: str | None, name: str) -> None:
    if not has_table(connection, schema, name, {"key", "value"}):
        place = name if schema is None else f"{schema}.{name}"
        raise ConfigurationError(f"there is a table {place!r} that has no keys and values; choose another table name")


def _table(name: str, schema: str | None) -> Table:
    own: Any = ContextEntry.__table__
    columns = [Column(each.name, each.type, primary_key=each.primary_key, nullable=each.nullable) for each in own.c]
    return Table(name, MetaData(), *columns, schema=schema)
