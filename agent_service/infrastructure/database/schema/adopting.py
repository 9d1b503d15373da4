"""Tables that an earlier version made: an upgrade takes them over where they are, a downgrade returns them.

Earlier versions kept their revision in Alembic's default table ``alembic_version``, under the ids 0001 to 0007, where
it conflicted with an application's own Alembic. So the revision of such tables is derived from the objects that exist.
The row of ``alembic_version`` is removed if it names that revision; any other row is the application's and stays.
"""

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, text

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.catalog import ADOPTED, OUR_COLUMNS, has_table, is_adopted
from agent_service.infrastructure.database.naming.names import RELATIONS, TableNames, quoted
from agent_service.infrastructure.database.schema.documented_table import is_documented
from agent_service.infrastructure.database.schema.revisions import current, has_version_table, identifier, number

__all__ = ["LAST_EARLIER", "adopt", "adoptable", "hand_back", "has_search_or_policies", "require_way_back"]

logger = logging.getLogger("agent_service.database")

LAST_EARLIER: Final = 7
"""The newest revision that earlier versions knew."""

_OTHER_VERSIONS: Final = text("""
SELECT CAST(n.nspname AS text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'alembic_version' AND c.relkind = 'r' AND has_schema_privilege(n.oid, 'USAGE')
AND has_table_privilege(c.oid, 'SELECT')
AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'version_num' AND NOT a.attisdropped)
""")
_EARLIER: Final = "alembic_version"
_FIRST_OWN: Final = identifier(str(LAST_EARLIER + 1))


def adopt(connection: Connection, names: TableNames) -> None:
    """Add our own version table to tables of an earlier version, and remove our row from ``alembic_version``.

    :raises DatabaseError: if a foreign table has the name of one of ours, or the objects match no revision.
    """
    if has_version_table(connection, names):
        return
    revision = adoptable(connection, names)
    if revision is None:
        _refuse_strangers(connection, names)
        return
    _make_version_table(connection, names.schema, names.local("version"), identifier(revision))
    if names.schema is not None:
        connection.exec_driver_sql(f"COMMENT ON TABLE {names.full('version')} IS '{ADOPTED}'")
    left = _take_out(connection, names, revision)
    logger.info("took over the tables of %s at revision %s%s", names, identifier(revision), left)


def adoptable(connection: Connection, names: TableNames) -> str | None:
    """Return the revision, as earlier versions called it, of tables that have no version table of our own.

    :raises DatabaseError: if objects of a revision are missing, and nothing else identifies it.
    """
    marks = _marks(connection, names)
    made = [revision for revision, is_there in marks.items() if is_there()]
    if not made or not _is_ours(connection, names, "sessions"):
        return None
    later = [revision for revision in marks if revision > made[-1]]
    # Revisions that change nothing on this engine cannot be told from the one before.
    alike = [f"{each:04d}" for each in range(made[-1], later[0] if later else LAST_EARLIER + 1)]
    said = next((row for _, rows in _earlier_versions(connection, names) for row in rows if row in alike), None)
    missing = [f"{each:04d}" for each in marks if each < made[-1] and each not in made]
    if missing and said is None:
        raise DatabaseError(
            f"tables of {names} are there without what revision {', '.join(missing)} makes, so they were not made by "
            "a version of this package; if your own Alembic made them, call complete_tables() in its revision"
        )
    return said or alike[0]


def has_search_or_policies(connection: Connection, names: TableNames) -> bool:
    """Whether objects exist that only revisions of this package make: search on SQLite, policies on PostgreSQL."""
    return _is_ours(connection, names, "session_search") if names.schema is None else _has_policy(connection, names)


def hand_back(connection: Connection, names: TableNames) -> None:
    """After a downgrade: leave what an earlier version expects, or nothing where nothing is left.

    :raises DatabaseError: ``alembic_version`` is the application's.
    """
    revision = current(connection, names)
    if revision is not None and (number(revision) > LAST_EARLIER or not is_adopted(connection, names)):
        return
    if revision is not None:
        _put_back(connection, names, f"{number(revision):04d}")
    if has_version_table(connection, names):
        connection.exec_driver_sql(f"DROP TABLE {names.full('version')}")


def require_way_back(connection: Connection, names: TableNames, before: str, after: str) -> None:
    """Refuse a downgrade whose tables an earlier version could not use, before anything is changed.

    :raises DatabaseError: ``alembic_version`` is the application's.
    """
    down = number(after) < number(before) and number(after) <= LAST_EARLIER
    if down and is_adopted(connection, names) and has_table(connection, names.schema, _EARLIER):
        _require_empty(connection, names, after)


def _require_empty(connection: Connection, names: TableNames, revision: str) -> None:
    rows = _rows(connection, _qualified(names.schema))
    if rows:
        raise DatabaseError(
            f"cannot downgrade to {revision}: the version before {_FIRST_OWN} keeps its revision in "
            f"alembic_version, and there is {', '.join(rows)}, of another Alembic; stay at {_FIRST_OWN}, or give "
            "the other one a version_table of its own"
        )


def _put_back(connection: Connection, names: TableNames, revision: str) -> None:
    if has_table(connection, names.schema, _EARLIER):
        _require_empty(connection, names, identifier(revision))
        connection.exec_driver_sql(f"DROP TABLE {_qualified(names.schema)}")
    _make_version_table(connection, names.schema, _EARLIER, revision)


def _make_version_table(connection: Connection, schema: str | None, name: str, revision: str) -> None:
    """Make a version table as Alembic does, with a row in it."""
    column: Column[str] = Column("version_num", String(32), nullable=False)
    table = Table(name, MetaData(), column, PrimaryKeyConstraint(column, name=f"{name}_pkc"), schema=schema)
    table.create(connection)
    connection.execute(table.insert().values(version_num=revision))


def _marks(connection: Connection, names: TableNames) -> dict[int, Callable[[], bool]]:
    """Return for each revision, in order, whether its own objects exist; revisions that make none are left out."""

    def ours(kind: str) -> Callable[[], bool]:
        return lambda: _is_ours(connection, names, kind)

    def watched() -> bool:
        return has_table(connection, names.schema, names.local("sessions"), {"watched_until"})

    if names.schema is None:
        return {
            1: lambda: ours("session_messages")() and ours("session_search")(),
            2: ours("context_store"),
            3: watched,
            5: lambda: _has_index(connection, names, "ix_sessions_forks"),
            6: ours("cache_outbox"),
            7: ours("session_search_pending"),
        }
    return {
        1: ours("session_messages"),
        2: ours("context_store"),
        3: watched,
        4: lambda: _has_policy(connection, names),
        5: lambda: _has_index(connection, names, "ix_sessions_forks"),
        6: ours("cache_outbox"),
    }


def _is_ours(connection: Connection, names: TableNames, kind: str) -> bool:
    return has_table(connection, names.schema, names.local(kind), OUR_COLUMNS[kind])


def _has_index(connection: Connection, names: TableNames, index: str) -> bool:
    if names.schema is None:
        found = text("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = :index")
        return connection.execute(found, {"index": names.local(index)}).first() is not None
    found = text("SELECT to_regclass(:index) IS NOT NULL")
    return bool(connection.execute(found, {"index": names.full(index)}).scalar())


def _has_policy(connection: Connection, names: TableNames) -> bool:
    policy = text("SELECT 1 FROM pg_policy WHERE polname = 'tenant' AND polrelid = to_regclass(:table)")
    return connection.execute(policy, {"table": names.full("sessions")}).first() is not None


def _refuse_strangers(connection: Connection, names: TableNames) -> None:
    for name in RELATIONS:
        if is_documented(connection, names.local(name)):
            continue  # its revision takes it over
        if has_table(connection, names.schema, names.local(name)):
            setting = "DB_TABLE_PREFIX" if names.schema is None else "DB_SCHEMA or DB_TABLE_PREFIX"
            raise DatabaseError(
                f"there is a table {names.full(name)} already, and it is not this package's; choose other names for "
                f"the package's tables with {setting}"
            )


def _take_out(connection: Connection, names: TableNames, revision: str) -> str:
    """Remove our row from ``alembic_version``, and return a line about it."""
    found = _earlier_versions(connection, names)
    if len(found) != 1 or revision not in found[0][1]:
        return ""
    table, rows = found[0]
    connection.execute(text(f"DELETE FROM {table} WHERE version_num = :revision"), {"revision": revision})  # noqa: S608
    if len(rows) == 1:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    return f", and their row {revision} out of {table}"


def _earlier_versions(connection: Connection, names: TableNames) -> list[tuple[str, list[str]]]:
    """Return each ``alembic_version`` that an earlier version may have used, and its rows.

    It made or found it by the ``search_path`` of its role: beside the tables, else in another schema.
    """
    if has_table(connection, names.schema, _EARLIER, {"version_num"}):
        tables = [_qualified(names.schema)]
    elif names.schema is None:
        tables = []
    else:
        tables = [_qualified(schema) for schema in connection.scalars(_OTHER_VERSIONS)]
    return [(table, _rows(connection, table)) for table in tables]


def _rows(connection: Connection, table: str) -> list[str]:
    return list(connection.scalars(text(f"SELECT version_num FROM {table}")))  # noqa: S608


def _qualified(schema: str | None) -> str:
    return _EARLIER if schema is None else f"{quoted(schema)}.{_EARLIER}"
