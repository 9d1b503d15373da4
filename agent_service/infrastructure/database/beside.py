"""For applications with an Alembic of their own in the same database: it leaves our tables alone, or creates them."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Index, MetaData, Table

from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.infrastructure.database.naming.catalog import OUR_COLUMNS
from agent_service.infrastructure.database.naming.engines import Naming, names_of
from agent_service.infrastructure.database.naming.names import DEFAULT_SCHEMA, RELATIONS, TableNames
from agent_service.infrastructure.database.schema import revisions
from agent_service.infrastructure.database.schema.adopting import adopt, has_search_or_policies
from agent_service.infrastructure.database.schema.differing import in_words
from agent_service.infrastructure.database.schema.metadata import copy_tables
from agent_service.infrastructure.database.schema.migration import differences

__all__ = ["add_tables", "complete_tables", "include_name", "include_object"]

_SEARCH_STORAGE: Final = {
    "session_search_data": {"id", "block"},
    "session_search_idx": {"segid", "term", "pgno"},
    "session_search_docsize": {"id", "sz"},
    "session_search_config": {"k", "v"},
}
"""Tables that SQLite makes for its full text index."""
_USUAL_SCHEMA: Final = "public"
_ENGINE_OWN: Final = re.compile(
    r"ix_(sessions_title_trigram|session_messages_content_trigram|context_store_prefix|store_items_prefix)\Z"
)


def include_object(object_: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:  # noqa: ARG001
    """Keep an application's ``--autogenerate`` from dropping objects of this package.

    For ``context.configure(include_object=include_object)``. It recognises our tables by their columns, so it needs
    no schemas and prefixes, and includes tables of the application that have the same names.
    """
    if not reflected or compare_to is not None:
        return True
    if isinstance(object_, Index):
        return not (object_.table is not None and _is_ours(object_.table) and _ENGINE_OWN.search(name or ""))
    return not (isinstance(object_, Table) and _is_ours(object_))


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Spare an application's ``--autogenerate`` the reading of our tables, where their names say whose they are.

    For ``context.configure(include_name=include_name, include_object=include_object)``. Not for an application whose
    own metadata has our tables, by :func:`add_tables`.
    """
    naming = Naming()
    schema, prefix = naming.schema or DEFAULT_SCHEMA, naming.table_prefix
    if type_ == "schema":
        return not (name == schema == DEFAULT_SCHEMA)
    if type_ != "table" or name is None:
        return True
    if parent_names.get("schema_name") == schema == DEFAULT_SCHEMA:
        return False
    if prefix is None:
        prefix = f"{DEFAULT_SCHEMA}_"
    return not (prefix and name.removeprefix(prefix) in _ALL_TABLES and name.startswith(prefix))


_ALL_TABLES: Final = frozenset({*RELATIONS, *_SEARCH_STORAGE, "version"})


def add_tables(
    metadata: MetaData,
    dialect: Literal["postgresql", "sqlite"],
    *,
    schema: str | None = None,
    table_prefix: str | None = None,
) -> None:
    """Add our tables to an application's MetaData, for one chain of revisions that makes its tables and ours.

    Autogenerate then writes what makes them. It sees neither triggers nor policies nor search; call
    :func:`complete_tables` at the end of that revision. On PostgreSQL make the schema at its beginning.

    :param dialect: of the database that the revisions are for.
    :param schema: PostgreSQL's schema; None is DB_SCHEMA.
    :param table_prefix: what the names begin with; None is DB_TABLE_PREFIX.
    :raises ConfigurationError: for what cannot be a name, or a schema that the MetaData cannot express.
    """
    names = Naming(schema, table_prefix).default(on_postgres=dialect == "postgresql")
    if names.schema == _USUAL_SCHEMA and metadata.schema is not None:
        raise ConfigurationError(
            f"metadata has the schema {metadata.schema!r}, so none of its tables can be in {_USUAL_SCHEMA}; choose "
            "another schema for the package's tables, or add them to a MetaData without one"
        )
    # Alembic wants the default schema without its name.
    copy_tables(metadata, names, schema=None if names.schema == _USUAL_SCHEMA else names.schema)


def complete_tables(connection: Connection) -> None:
    """Make what belongs to our tables and Alembic's autogenerate does not see, and note the package's newest revision.

    For a revision of an application whose own metadata has our tables (:func:`add_tables`)::

        def upgrade() -> None:
            ...  # what autogenerate wrote
            complete_tables(op.get_bind())

    Call it again in the revision that follows an upgrade of this package, before autogenerate looks: it changes keys,
    which autogenerate does not see, in one transaction. Where all is done it does nothing. On PostgreSQL
    ``agent-service db upgrade`` does the same in short steps, and large tables need that.

    :raises DatabaseError: the tables are not there, or not those of this version.
    """
    names = names_of(connection)
    if has_search_or_policies(connection, names):
        adopt(connection, names)  # They were made by an earlier version, not by a revision of the application.
    present = revisions.current(connection, names)
    if present is None:
        _require_tables(connection, names)
    scripts = revisions.scripts()
    with revisions.with_tables_made(), revisions.operations(connection):
        for script in reversed(list(scripts.iterate_revisions("heads", present or "base"))):
            script.module.upgrade()
    if present is not None:
        _require_tables(connection, names)
    MigrationContext.configure(connection, opts=revisions.version_options(names)).stamp(scripts, "head")


def _require_tables(connection: Connection, names: TableNames) -> None:
    looking = connection.begin_nested()
    found = differences(connection)
    looking.rollback()  # It only told PostgreSQL where to look, for the comparison.
    if found:
        raise DatabaseError(
            f"the package's tables in {names} are not as this version needs them ({next(in_words(found)):.200}); call "
            "complete_tables after what makes them, with the schema and prefix that add_tables was called with"
        )


def _is_ours(table: Table) -> bool:
    columns = {each.name for each in table.columns}
    if columns - {"expires_at"} == OUR_COLUMNS["context_store"]:
        return True  # A table of keys and values, which its user named.
    if columns == {"version_num"}:
        return table.name.endswith("version")
    known = {**OUR_COLUMNS, **_SEARCH_STORAGE}
    return any(table.name.endswith(kind) and columns >= ours for kind, ours in known.items())
