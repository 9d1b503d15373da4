"""The first use of an embedded database that needs no migration, without Alembic, which takes longest to load.

A database at the newest revision is left as it is, and an empty one gets the newest schema. Every other one is for the
revisions, which lead to the same schema: ``tests/database/test_first_use.py``.
"""

import re
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from agent_service.infrastructure.database.models import Base
from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of, naming_of
from agent_service.infrastructure.database.naming.names import MARK, quoted
from agent_service.infrastructure.database.schema.sqlite_search_shape import make_search

__all__ = ["folder", "is_at_newest", "make_if_empty", "newest"]

_REVISION: Final = re.compile(r"(\d{4})_\w+\.py")


def folder() -> Path:
    """Find the revisions: inside an installed package, or at the root of a checkout."""
    here = Path(__file__).resolve()
    installed = here.parents[1] / "migrations"
    return installed if installed.is_dir() else here.parents[4] / "migrations"


def newest() -> str | None:
    """Return the newest revision by the names of the revisions' files."""
    names = [each.name for each in (folder() / "versions").iterdir()]
    numbers = [found[1] for found in map(_REVISION.fullmatch, names) if found]
    return f"{MARK}{max(numbers)}" if numbers else None


def is_at_newest(connection: Connection) -> bool:
    """Whether the package's own version table says the newest revision, and nothing else."""
    names = names_of(connection)
    if not has_table(connection, names.schema, names.local("version")):
        return False
    rows = connection.exec_driver_sql(f"SELECT version_num FROM {names.full('version')}")  # noqa: S608 - quoted
    return [str(row[0]) for row in rows] == [newest()]


def make_if_empty(connection: Connection) -> bool:
    """Make the newest schema in a SQLite database that holds nothing.

    :returns: False, where it holds something that is not the newest schema; nothing was done.
    """
    if _holds_something(connection):
        return False
    # Counts as a write, so it takes SQLite's write lock. Another process may have had it in between.
    connection.exec_driver_sql("SAVEPOINT migration")
    if _holds_something(connection):
        return is_at_newest(connection)
    names = names_of(connection)
    Base.metadata.create_all(connection, checkfirst=False)
    make_search(connection)
    table, key = names.full("version"), quoted(f"{names.local('version')}_pkc")
    connection.exec_driver_sql(
        f"CREATE TABLE {table} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {key} PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO {table} (version_num) VALUES (?)", (newest(),))  # noqa: S608 - quoted
    naming_of(connection.engine).forget()
    return True


def _holds_something(connection: Connection) -> bool:
    return connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").first() is not None
