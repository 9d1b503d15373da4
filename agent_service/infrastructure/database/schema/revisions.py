"""Where the revisions are, and which one a database is at, according to the package's own version table."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from alembic import op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.names import MARK, TableNames
from agent_service.infrastructure.database.schema import newest

__all__ = [
    "absolute",
    "between",
    "config",
    "current",
    "has_version_table",
    "head",
    "identifier",
    "known",
    "number",
    "operations",
    "scripts",
    "tables_are_made",
    "version_options",
    "with_tables_made",
]

_tables_are_made: Final = ContextVar("tables_are_made", default=False)
_SHORT: Final = re.compile(r"\d{1,4}")
_RELATIVE: Final = re.compile(r"\+[1-9]\d{0,3}")


def identifier(revision: str) -> str:
    """Return a revision's id; earlier versions, and people, leave out what every one begins with: "0007", "7"."""
    return f"{MARK}{int(revision):04d}" if _SHORT.fullmatch(revision) else revision


def number(revision: str) -> int:
    """Return how many revisions it takes to get there."""
    return int(revision.removeprefix(MARK))


def version_options(names: TableNames) -> dict[str, Any]:
    """Return Alembic's options about the version table."""
    return {"version_table": names.local("version"), "version_table_schema": names.schema}


def has_version_table(connection: Connection, names: TableNames) -> bool:
    """Whether the database has a version table of the package's own."""
    return has_table(connection, names.schema, names.local("version"))


def current(connection: Connection, names: TableNames) -> str | None:
    """Return the revision that the package's own version table says; one small read.

    :raises DatabaseError: it says more than one.
    """
    heads = MigrationContext.configure(connection, opts=version_options(names)).get_current_heads()
    if len(heads) > 1:
        raise DatabaseError(
            f"{names.full('version')} says that the database is at {' and '.join(sorted(heads))}, and it can only be "
            "at one; delete the rows that are wrong"
        )
    return heads[0] if heads else None


@lru_cache(maxsize=1)
def known() -> tuple[str, ...]:
    """Return every revision that the package knows, the first one first; read from its files once."""
    found = tuple(each.revision for each in scripts().walk_revisions())
    if not found:
        raise DatabaseError("the package holds no migrations; install it again")
    return found[::-1]


def head() -> str:
    """Return the newest revision."""
    return known()[-1]


def scripts() -> ScriptDirectory:
    """Return the revisions."""
    return ScriptDirectory.from_config(config())


def config(
    connection: Connection | None = None, report: Callable[[str], None] | None = None, *, down: bool = False
) -> Config:
    """Return what Alembic's commands are called with, and our ``env.py`` finds in its ``attributes``."""
    made = Config()
    made.set_main_option("script_location", str(newest.folder()).replace("%", "%%"))
    made.attributes.update(connection=connection, report=report, down=down)
    return made


def tables_are_made() -> bool:
    """Whether tables, columns and indexes are there already, so that a revision makes only the rest."""
    return _tables_are_made.get()


@contextmanager
def with_tables_made() -> Iterator[None]:
    """Have revisions leave tables, columns and indexes to the caller."""
    token = _tables_are_made.set(True)
    try:
        yield
    finally:
        _tables_are_made.reset(token)


@contextmanager
def operations(connection: Connection) -> Iterator[None]:
    """Have ``alembic.op`` work on the connection, which within a revision it already does."""
    try:
        op.get_context()
    except (NameError, AttributeError):  # as Alembic says it before, and after, its first revision
        with Operations.context(MigrationContext.configure(connection)):
            yield
    else:
        yield


def absolute(revision: str, current: str | None) -> str:
    """Return the id of a revision to go up to: "head", "+1", "7".

    :raises DatabaseError: there is none.
    """
    every = known()
    if revision in {"head", "heads"}:
        return every[-1]
    if _RELATIVE.fullmatch(revision):
        found = (0 if current is None else _place(current) + 1) + int(revision) - 1
        if found < len(every):
            return every[found]
    if identifier(revision) in every:
        return identifier(revision)
    raise DatabaseError(f"there is no revision {revision!r} to upgrade to; the newest is {every[-1]}")


def between(current: str | None, target: str) -> tuple[str, ...]:
    """Return the revisions that an upgrade from one to another runs.

    :raises DatabaseError: the database is at a revision that only a later version knows.
    """
    return known()[0 if current is None else _place(current) + 1 : _place(target) + 1]


def _place(revision: str) -> int:
    if revision not in known():
        raise DatabaseError(
            f"a later version of the package made revision {revision}: install that version, no upgrade helps"
        )
    return known().index(revision)
