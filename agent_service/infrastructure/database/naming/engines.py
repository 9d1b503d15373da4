"""Which table names the statements of an engine use: those that were configured, else those of the existing tables.

Names are looked up at the first statement that needs them, on its own connection, so that it works wherever the
statement works (a replica, a pgbouncer, a caller's own engine). They are remembered once tables were found.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.core.settings import get_settings
from agent_service.core.sql_names import require_schema, require_table_prefix
from agent_service.infrastructure.database.naming.catalog import PLACES, holds_documented_store, places
from agent_service.infrastructure.database.naming.names import DEFAULT_SCHEMA, MARK, TableNames

__all__ = ["Naming", "name_tables", "names_of", "naming_of"]

_namings: Final[WeakKeyDictionary[Dialect, "Naming"]] = WeakKeyDictionary()
"""By dialect, which an engine shares with all engines that ``execution_options`` derives from it."""


class Naming:
    """The names of an engine's statements.

    :param schema: PostgreSQL's schema; None is DB_SCHEMA, and if that is not set ``agent_service``.
    :param table_prefix: what all names begin with; None is DB_TABLE_PREFIX, and if that is not set nothing on
        PostgreSQL and ``agent_service_`` on SQLite.

    With neither, tables of a version that had no such choice are served where they are.

    :raises ConfigurationError: if an argument cannot be a name.
    """

    def __init__(self, schema: str | None = None, table_prefix: str | None = None) -> None:
        settings = get_settings()
        self.schema = settings.db_schema if schema is None else _checked(require_schema, schema, "schema")
        self.table_prefix = (
            settings.db_table_prefix
            if table_prefix is None
            else _checked(require_table_prefix, table_prefix, "table_prefix")
        )
        self._found: TableNames | None = None
        self._engines: WeakSet[Engine] = WeakSet()

    @property
    def chosen(self) -> bool:
        """Whether a schema or a prefix was configured."""
        return self.schema is not None or self.table_prefix is not None

    def serve(self, engine: Engine) -> None:
        """Make the engine's statements use these names."""
        _namings[engine.dialect] = self
        listeners = engine.dispatch.before_cursor_execute
        if not any(getattr(each, "__self__", None) is self for each in listeners):
            event.listen(engine, "before_cursor_execute", self._name_statement, retval=True)
        self._engines.add(engine)

    def serves(self, engine: Engine) -> bool:
        """Whether the engine's statements use these names."""
        return engine in self._engines

    @property
    def found(self) -> TableNames | None:
        """The names, once they were found out."""
        return self._found

    def of(self, connection: Connection) -> TableNames:
        """Return the names; while there are no tables, those that new ones get."""
        return self._found or self._find(connection)

    def settle(self, names: TableNames) -> None:
        """Use these names until they are forgotten, without looking for tables."""
        self._found = names

    def forget(self) -> None:
        """Find out again, because tables were made or removed."""
        self._found = None

    def default(self, *, on_postgres: bool) -> TableNames:
        """Return the names of new tables."""
        if on_postgres:
            return TableNames(self.schema or DEFAULT_SCHEMA, self.table_prefix or "")
        return TableNames(None, MARK if self.table_prefix is None else self.table_prefix)

    def _find(self, connection: Connection) -> TableNames:
        on_postgres = connection.dialect.name == "postgresql"
        default = self.default(on_postgres=on_postgres)
        if self.table_prefix is not None or (on_postgres and self.schema is not None):
            self._found = default
            return default
        found = places(connection)
        if (DEFAULT_SCHEMA if on_postgres else MARK) in found:
            self._found = default
        elif len(found) > 1:
            raise DatabaseError(
                f"several schemas hold sessions of an earlier version: {', '.join(found)}; name one in DB_SCHEMA"
            )
        elif found:
            self._found = TableNames(found[0], "") if on_postgres else TableNames(None, "")
        elif not on_postgres and holds_documented_store(connection):
            self._found = TableNames(None, "")  # Its table becomes ours, and the example's code can still use it.
        return self._found or default

    def _name_statement(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        if self._found is None and (MARK not in statement or statement in PLACES.values()):
            return statement, parameters
        return (self._found or self._find(connection)).render(statement), parameters


def name_tables(engine: AsyncEngine | Engine, *, schema: str | None = None, table_prefix: str | None = None) -> None:
    """Say what the package's tables are called in the database of an engine of your own, before it is used.

    Only for names other than DB_SCHEMA and DB_TABLE_PREFIX say: those apply to every engine that is handed to the
    package.

    :param schema: PostgreSQL's schema.
    :param table_prefix: what the names of tables, indexes and all else begin with.
    :raises ConfigurationError: for what cannot be a name, or an engine that has other names already.
    """
    sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    naming, known = Naming(schema, table_prefix), _namings.get(sync.dialect)
    if known is not None and (known.schema, known.table_prefix) != (naming.schema, naming.table_prefix):
        raise ConfigurationError(
            f"the engine serves schema {known.schema!r} and table_prefix {known.table_prefix!r} already; "
            "call name_tables before the engine is used, or make another engine"
        )
    (known or naming).serve(sync)


def naming_of(engine: Engine) -> Naming:
    """Return the naming of an engine; an engine without one gets that of the settings."""
    naming = _namings.get(engine.dialect)
    if naming is None:
        naming = Naming()
    if not naming.serves(engine):
        naming.serve(engine)
    return naming


def names_of(connection: Connection) -> TableNames:
    """Return the names that the statements of a connection use."""
    naming = _namings.get(connection.dialect)
    return (naming_of(connection.engine) if naming is None else naming).of(connection)


def _checked(require: Any, value: str, argument: str) -> str:
    try:
        return str(require(value))
    except ValueError as exc:
        raise ConfigurationError(f"{argument} {exc}") from None
