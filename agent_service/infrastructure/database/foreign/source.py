"""Opening a database of another library so that nothing in it can change."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError
from agent_service.core.urls.database import POSTGRES, SQLITE, DatabaseTarget, parse_database_url
from agent_service.infrastructure.database.engine.creating import create_engine
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.foreign.reading import Reading
from agent_service.infrastructure.database.foreign.tables import SourceTable, find_table

__all__ = ["SourceDatabase"]

_SCHEMES: Final[Mapping[str, str]] = {
    "postgres": POSTGRES,
    "postgresql": POSTGRES,
    "postgresql+psycopg": POSTGRES,
    "postgresql+psycopg2": POSTGRES,
    "postgresql+psycopg_async": POSTGRES,
    POSTGRES: POSTGRES,
    "sqlite": SQLITE,
    "sqlite+pysqlite": SQLITE,
    SQLITE: SQLITE,
}
"""What other libraries call the databases, and what we call them: drivers differ, what is stored does not."""
_PATIENCE: Final = 30.0
"""Seconds to wait for a lock of an SQLite file."""


class SourceDatabase:
    """A database of another library: PostgreSQL, or a file of SQLite. Close it at the end.

    Every transaction is one that the database refuses to write in, and sees one state of it. Nothing is connected
    before the first.

    :param url: as SQLAlchemy or psycopg takes it, whatever driver it names: ``postgresql://user:password@host/name``,
        ``sqlite:///file.db``. Through a pgbouncer in transaction mode, too.
    :raises ConfigurationError: the URL cannot be used, or its file is not there; no message shows a password.
    """

    def __init__(self, url: str) -> None:
        self._target = _parse(url)
        self._engine = _sqlite(self._target) if self._target.embedded else _postgres(self._target)

    def __str__(self) -> str:
        return str(self._target)

    @property
    def embedded(self) -> bool:
        """Whether it is a file of SQLite."""
        return self._target.embedded

    @property
    def place(self) -> str:
        """Which database it is, whoever opens it from wherever: a URL without user name, password and options."""
        if not self._target.embedded:
            return str(self._target)
        return f"{SQLITE}:///{Path(_file(self._target)).resolve()}"

    async def close(self) -> None:
        """Close its connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        """Begin a transaction; all that is read in it is of one moment.

        :raises DatabaseUnavailableError: the database cannot be reached.
        :raises DatabaseError: it fails otherwise.
        """
        with database_errors("read the source"):
            async with self._engine.connect() as connection:
                yield Reading(connection)

    async def table(self, name: str, *columns: str, schema: str | None = None) -> SourceTable:
        """Find a table.

        :param columns: what it must have.
        :raises ConfigurationError: there is no such table, or it lacks a column; the message names the tables that are.
        :raises DatabaseUnavailableError: the database cannot be reached.
        :raises DatabaseError: it fails otherwise.
        """
        with database_errors("read the source"):
            async with self._engine.connect() as connection:
                found = await connection.run_sync(find_table, name, schema)
        missing = sorted(set(columns) - found.columns)
        if missing:
            raise ConfigurationError(
                f"the table {name!r} of {self} has no column {', '.join(map(repr, missing))}, so it is another one; "
                f"it has {', '.join(sorted(found.columns))}"
            )
        return found


def _parse(url: str) -> DatabaseTarget:
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL of the source must be a str, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    known = _SCHEMES.get(scheme)
    if not separator or known is None:
        raise ConfigurationError(
            "the URL of the source must begin with postgresql:// or sqlite:///, such as "
            "postgresql://user:password@host:5432/name or sqlite:///file.db"
        )
    try:
        target = parse_database_url(f"{known}://{rest}")
    except ConfigurationError as exc:
        raise ConfigurationError(f"source: {exc}") from exc
    if target.embedded:
        _require_file(target)
    return target


def _file(target: DatabaseTarget) -> str:
    path = target.database
    if target.options.get("uri"):
        path = path.removeprefix("file:")
    return path


def _require_file(target: DatabaseTarget) -> None:
    path = _file(target)
    if path in {"", ":memory:"} or target.options.get("mode") == "memory":
        raise ConfigurationError("the source is a database in memory, which only its own process sees; give its file")
    if not Path(path).is_file():
        raise ConfigurationError(f"the source {path!r:.200} is no file; check the path")


def _postgres(target: DatabaseTarget) -> AsyncEngine:
    # Statements without names work with and without a pgbouncer.
    engine = create_engine(
        target,
        {"pool_size": 2, "max_overflow": 0},
        setting="the URL of the source",
        statement_timeout=None,
        isolation_level="REPEATABLE READ",
        pgbouncer=True,
    )
    return engine.execution_options(postgresql_readonly=True)


def _sqlite(target: DatabaseTarget) -> AsyncEngine:
    """Return an engine whose connections cannot write; each transaction begins when it is asked for."""
    uri = f"file:{quote(str(Path(_file(target)).resolve()))}"
    query = {"mode": "ro", "uri": "true"}
    query |= {name: str(target.options[name]) for name in ("immutable", "nolock", "vfs") if name in target.options}
    engine = create_async_engine(
        URL.create(SQLITE, database=uri, query=query),
        hide_parameters=True,
        poolclass=NullPool,
        connect_args={"timeout": _PATIENCE, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "do_connect", _connect)
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _connect(_dialect: Any, _entry: Any, arguments: Any, options: Any) -> None:
    """Try first without a thread, which would outlive what fails."""
    try:
        sqlite3.connect(*arguments, **options).close()
    except sqlite3.Error as exc:
        raise DatabaseUnavailableError(f"cannot open the source ({exc}); check its path and permissions") from exc


def _prepare(connection: Any, _entry: Any) -> None:
    # Text that is no UTF-8 is a fault of one row, not of the page it is read with.
    connection.run_async(_read_any_text)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


async def _read_any_text(raw: Any) -> None:
    raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
