"""Finding the key-value table that a user named, or creating it."""

from typing import Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, func, select
from sqlalchemy.schema import CreateTable

from agent_service.core.errors import ConfigurationError
from agent_service.core.sql_names import LONGEST_NAME
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.database.naming.catalog import MADE, has_table, key_value_places, make_schema
from agent_service.infrastructure.database.naming.engines import names_of, naming_of
from agent_service.infrastructure.database.schema.documented_table import RowOf, is_documented, take_over

__all__ = ["find_or_make", "find_own"]

_EXPIRY: Final = "expires_at"


def find_own(connection: Connection) -> Table:
    """Return the package's own table; before revision 0012 it has no ``expires_at``."""
    names = names_of(connection)
    if has_table(connection, names.schema, names.local("context_store"), {_EXPIRY}):
        own: Any = ContextEntry.__table__
        return own  # type: ignore[no-any-return]
    return _table(ContextEntry.__tablename__, None, expire=False)


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
        return table if has_table(connection, None, full, {_EXPIRY}) else _table(full, None, expire=False)
    # CREATE ... IF NOT EXISTS is not safe against another one at the same moment.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(names.schema))))
    if has_table(connection, names.schema, full):
        _require_keys_and_values(connection, names.schema, full)
        expire = has_table(connection, names.schema, full, {_EXPIRY})
        return table if expire else _table(full, names.schema, expire=False)
    earlier = [] if naming.chosen else key_value_places(connection, full)
    if len(earlier) > 1:
        raise ConfigurationError(f"table {full!r} is in several schemas: {', '.join(earlier)}; name one in DB_SCHEMA")
    if earlier:
        return _table(full, earlier[0], expire=has_table(connection, earlier[0], full, {_EXPIRY}))
    make_schema(connection, names.schema)
    connection.execute(CreateTable(table))
    place = connection.dialect.identifier_preparer.format_table(table)
    connection.exec_driver_sql(f"CREATE INDEX ON {place} (key text_pattern_ops)")
    connection.exec_driver_sql(f"COMMENT ON TABLE {place} IS '{MADE}'")
    return table


def _created(connection: Connection, table: Table) -> Table:
    table.create(connection)
    return table


def _require_keys_and_values(connection: Connection, schema: str | None, name: str) -> None:
    if not has_table(connection, schema, name, {"key", "value"}):
        place = name if schema is None else f"{schema}.{name}"
        raise ConfigurationError(f"there is a table {place!r} that has no keys and values; choose another table name")


def _table(name: str, schema: str | None, *, expire: bool = True) -> Table:
    own: Any = ContextEntry.__table__
    columns = [
        Column(each.name, each.type, primary_key=each.primary_key, nullable=each.nullable)
        for each in own.c
        if expire or each.name != _EXPIRY
    ]
    return Table(name, MetaData(), *columns, schema=schema)
