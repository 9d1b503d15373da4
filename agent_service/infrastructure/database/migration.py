"""The schema's revisions: where they are, and how a database gets from one to another."""

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.models import Base

__all__ = ["SchemaState", "check", "compare_options", "downgrade", "is_current", "lag", "load_revisions", "upgrade"]

# An arbitrary key that every process agrees on, for PostgreSQL's advisory lock.
_LOCK_KEY = 0x61675F6D696772

# Search indexes depend on what the engine offers (pg_trgm, FTS5); the migration owns them, the models do not know them.
_ENGINE_OWN = ("session_search", "ix_sessions_title_trigram", "ix_session_messages_content_trigram")


@dataclass(frozen=True)
class SchemaState:
    """What a database's schema is, what it should be, and what brings it there (empty: nothing need be done)."""

    current: str | None
    head: str
    differences: tuple[str, ...]
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the database is at the newest revision and holds exactly what the models say."""
        return self.current == self.head and not self.differences


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Move the schema forward, in the connection's transaction. Processes that race take turns."""
    _lock(connection)
    _run(lambda: command.upgrade(_config(connection), revision))


def downgrade(connection: Connection, revision: str) -> None:
    """Move the schema back to ``revision`` ("base": to nothing), in the connection's transaction. Data goes with it."""
    _lock(connection)
    _run(lambda: command.downgrade(_config(connection), revision))


def is_current(connection: Connection) -> bool:
    """Whether the database is at the newest revision; one small read."""
    return _current(connection) == load_revisions()[-1]


def lag(connection: Connection) -> str | None:
    """Say what the schema lacks, or None: it is at the newest revision, or one that only a later version knows."""
    current, revisions = _current(connection), load_revisions()
    if current is None:
        return "the database is not migrated"
    if current in revisions[:-1]:
        return f"the schema is at revision {current}, and this version needs {revisions[-1]}"
    return None


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def check(connection: Connection) -> SchemaState:
    """Compare the database with the revisions and the models."""
    context = MigrationContext.configure(connection, opts=compare_options())
    differences = compare_metadata(context, Base.metadata)
    current = context.get_current_revision()
    return SchemaState(
        current, load_revisions()[-1], tuple(str(each) for each in differences), _remedy(current, differences)
    )


def _remedy(current: str | None, differences: list[Any]) -> str:
    revisions = load_revisions()
    if current is not None and current not in revisions:
        return f"a later version of the package made revision {current}: install that version, no upgrade helps"
    if current != revisions[-1]:
        return "run: agent-service db upgrade"
    kinds = {change[0] for each in differences for change in (each if isinstance(each, list) else [each])}
    surplus = {kind for kind in kinds if kind.startswith("remove_")}
    remedies = []
    if surplus:
        remedies.append("drop what the package does not know, or keep it in a table of your own")
    if kinds - surplus:
        remedies.append("put back by hand what is missing or was changed, as the migrations made it")
    return "; ".join(remedies) and f"the revision is the newest, so no upgrade helps: {'; '.join(remedies)}"


def compare_options() -> dict[str, Any]:
    """Give the options with which Alembic compares a database to the models."""
    return {
        "target_metadata": Base.metadata,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": _is_ours,
    }


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    if kind == "table" and name not in Base.metadata.tables:
        return False  # Other tables of the caller's database, and SQLite's search tables.
    return name is None or not name.startswith(_ENGINE_OWN)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
    else:
        # Counts as a write, so it takes SQLite's write lock before the current revision is read.
        connection.exec_driver_sql("SAVEPOINT migration")


def _run(migrate: Any) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        migrate()
    except CommandError as exc:
        raise DatabaseError(f"cannot migrate: {exc}; is the database newer than this package?") from exc


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@lru_cache(maxsize=1)
def load_revisions() -> tuple[str, ...]:
    """Return every revision that the package knows, the first one first; read from its files once."""
    revisions = tuple(each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions())
    if not revisions:
        raise DatabaseError("the package holds no migrations; install it again")
    return revisions[::-1]


def _scripts() -> Path:
    """Find the revisions: inside an installed package, or at the root of a checkout."""
    here = Path(__file__).resolve()
    installed = here.parent / "migrations"
    return installed if installed.is_dir() else here.parents[3] / "migrations"
