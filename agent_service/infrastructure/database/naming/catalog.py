"""Finding tables of ours in a database: recognised by their columns, never by a name alone."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.naming.names import (
    CHECKPOINTS,
    DEFAULT_SCHEMA,
    MARK,
    RELATIONS,
    TableNames,
    quoted,
)

__all__ = [
    "ADOPTED",
    "MADE",
    "OUR_COLUMNS",
    "channel_of",
    "has_table",
    "holds_documented_store",
    "is_adopted",
    "key_value_places",
    "make_schema",
    "places",
]

ADOPTED: Final = "agent_service: the tables beside this one come from a version that gave them no schema of their own"
"""PostgreSQL's comment on a version table that was added to tables which were there before."""

_EARLIER_CHANNEL: Final = f"{MARK}sessions"

OUR_COLUMNS: Final = {
    "sessions": frozenset({"tenant_id", "external_id", "last_seq", "total_messages", "total_tokens", "expires_at"}),
    "session_messages": frozenset({"session_id", "seq", "client_id", "role", "data", "token_count"}),
    "context_store": frozenset({"key", "value", "long_key"}),
    "cache_outbox": frozenset({"id", "format", "body", "created_at", "failed_at"}),
    "fleet": frozenset({"process", "snapshot", "expires_at"}),
    "checkpoint_threads": frozenset({"thread_id", "id", "space", "active_at"}),
    "checkpoint_shares": frozenset({"thread", "space", "rank"}),
    "checkpoints": frozenset({"thread", "namespace", "checkpoint_id", "versions", "facts", "document"}),
    "checkpoint_blobs": frozenset({"space", "namespace", "channel", "version", "value"}),
    "checkpoint_writes": frozenset({"thread", "namespace", "checkpoint_id", "task_id", "place", "value"}),
    "session_search": frozenset({"body"}),
    "session_search_entries": frozenset({"id", "session_id", "seq"}),
    "session_search_pending": frozenset({"id", "session_id", "seq"}),
}
"""Columns by which a table is recognised."""


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"'{each}'" for each in sorted(names))


def _has_columns(table: str, kind: str) -> str:
    columns = OUR_COLUMNS[kind]
    return (
        f"(SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = {table}.oid AND attnum > 0 "  # noqa: S608
        f"AND NOT attisdropped AND attname IN ({_listed(columns)})) = {len(columns)}"
    )


# Without the comment, a version table stands beside tables that were given their place by DB_SCHEMA: they are not for
# a process that was not told of it.
_PLACES_POSTGRES: Final = f"""
SELECT n.nspname FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_class m ON m.relnamespace = n.oid AND m.relname = 'session_messages' AND m.relkind IN ('r', 'p')
LEFT JOIN pg_catalog.pg_class v ON v.relnamespace = n.oid AND v.relname = '{MARK}version'
WHERE s.relname = 'sessions' AND s.relkind IN ('r', 'p')
AND (n.nspname = '{DEFAULT_SCHEMA}' OR v.oid IS NULL
     OR pg_catalog.obj_description(v.oid, 'pg_class') = '{ADOPTED}')
AND {_has_columns("s", "sessions")} AND {_has_columns("m", "session_messages")}
ORDER BY n.nspname
"""  # noqa: S608


def _sqlite_has(prefix: str, kind: str) -> str:
    columns = OUR_COLUMNS[kind]
    found = f"SELECT count(*) FROM pragma_table_info('{prefix}{kind}') WHERE name IN ({_listed(columns)})"  # noqa: S608
    return f"({found}) = {len(columns)}"


_PLACES_SQLITE: Final = " UNION ALL ".join(
    f"SELECT '{prefix}' WHERE {_sqlite_has(prefix, 'sessions')} AND {_sqlite_has(prefix, 'session_messages')}"
    for prefix in (MARK, "")
)


MADE: Final = "agent_service: a table of keys and values"
"""PostgreSQL's comment on a key-value table that has a place of its own."""

_KEY_VALUE_PLACES: Final = text(f"""
SELECT n.nspname FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE t.relname = CAST(:table AS name) AND t.relkind IN ('r', 'p') AND {_has_columns("t", "context_store")}
AND pg_catalog.obj_description(t.oid, 'pg_class') IS DISTINCT FROM '{MADE}'
ORDER BY n.nspname
""")  # noqa: S608


_NEVER_WITHOUT_PREFIX: Final = {"fleet", *CHECKPOINTS}
_OTHER_NAMES: Final = _listed(set(RELATIONS) - {"context_store"} - _NEVER_WITHOUT_PREFIX)
_DOCUMENTED_STORE: Final = f"""
SELECT (SELECT group_concat(name) FROM (SELECT name FROM pragma_table_info('context_store') ORDER BY name))
    = 'key,value'
AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name IN ({_OTHER_NAMES}))
"""  # noqa: S608

PLACES: Final = {"postgresql": _PLACES_POSTGRES, "sqlite": _PLACES_SQLITE}
"""Statements whose names stay as they are written."""


def places(connection: Connection) -> list[str]:
    """Return the schemas with tables that have no prefix and no chosen schema; on SQLite the prefixes."""
    return [str(row[0]) for row in connection.exec_driver_sql(PLACES[connection.dialect.name])]


def holds_documented_store(connection: Connection) -> bool:
    """Whether a SQLite file has the documented ``context_store(key, value)``, and no other table of a name of ours."""
    return bool(connection.exec_driver_sql(_DOCUMENTED_STORE).scalar())


def is_adopted(connection: Connection, names: TableNames) -> bool:
    """Whether the tables come from a version of the package that gave them no names of its own."""
    if names.prefix:
        return False
    if names.schema is None:
        return True
    comment = text("SELECT pg_catalog.obj_description(CAST(pg_catalog.to_regclass(:version) AS oid), 'pg_class')")
    return bool(connection.execute(comment, {"version": names.full("version")}).scalar() == ADOPTED)


def channel_of(connection: Connection, names: TableNames) -> str:
    """Return what notifications are sent through; earlier versions, which have one for all tables, still listen."""
    return _EARLIER_CHANNEL if is_adopted(connection, names) else names.channel


def make_schema(connection: Connection, schema: str) -> None:
    """Make a schema, if PostgreSQL has none of that name.

    :raises DatabaseError: the role may not.
    """
    # IF NOT EXISTS asks for the right to make one even where there is one.
    there = text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = CAST(:schema AS name)")
    if connection.execute(there, {"schema": schema}).first() is not None:
        return
    try:
        connection.exec_driver_sql(f"CREATE SCHEMA {quoted(schema)}")
    except DBAPIError as exc:
        raise DatabaseError(
            f"cannot make the schema {schema!r} for the package's tables ({reason_of(exc)}); have it made by a role "
            "that may, or name in DB_SCHEMA one in which this role may create tables"
        ) from exc


def has_table(connection: Connection, schema: str | None, table: str, columns: Collection[str] = ()) -> bool:
    """Whether there is a table or view of that name, in that schema, with at least those columns."""
    found = set(_columns(connection, schema, table))
    return bool(found) and found.issuperset(columns)


def key_value_places(connection: Connection, table: str) -> list[str]:
    """Return the schemas in which an earlier version made a key-value table of that name, where its role looked first.

    Those made since have a comment.
    """
    return [str(schema) for schema in connection.scalars(_KEY_VALUE_PLACES, {"table": table})]


_COLUMNS_SQLITE: Final = text("SELECT name FROM pragma_table_info(:table)")
_COLUMNS_POSTGRES: Final = text("""
SELECT CAST(a.attname AS text) FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = CAST(:schema AS name) AND c.relname = CAST(:table AS name) AND a.attnum > 0 AND NOT a.attisdropped
""")


def _columns(connection: Connection, schema: str | None, table: str) -> list[str]:
    if schema is None:
        return list(connection.scalars(_COLUMNS_SQLITE, {"table": table}))
    return list(connection.scalars(_COLUMNS_POSTGRES, {"schema": schema, "table": table}))
