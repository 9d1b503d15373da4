"""From a URL to an engine that speaks to its database the way this room needs it."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent_service.core.errors import ConfigurationError, DatabaseUnavailableError
from agent_service.infrastructure.database.documents import dumps, loads
from agent_service.infrastructure.database.opening import open_connection
from agent_service.infrastructure.database.postgres import connect_options, watch_connections
from agent_service.infrastructure.database.sqlite import BUSY_TIMEOUT, WriteLock

__all__ = ["create_engine", "describe", "is_embedded", "parse_url"]

POSTGRES: Final = "postgresql+asyncpg"
SQLITE: Final = "sqlite+aiosqlite"


def parse_url(url: str) -> URL:
    """Give the URL's parts.

    :raises ConfigurationError: it is none, or leads to a database we do not speak to; it never shows a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # No chaining: the original repeats the URL, which may hold a password.
        raise ConfigurationError("DATABASE_URL is no URL; it looks like postgresql+asyncpg://user@host/name") from None
    if parsed.drivername not in {POSTGRES, SQLITE}:
        raise ConfigurationError(f"DATABASE_URL begins with {parsed.drivername}://; use {POSTGRES}:// or {SQLITE}://")
    return parsed


def is_embedded(url: URL) -> bool:
    """Whether the database lives in this process: SQLite."""
    return url.drivername == SQLITE


def describe(url: URL) -> str:
    """Say where a URL leads, without its credentials and options."""
    host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"{url.drivername}://{host}/{url.database or ''}"


def create_engine(
    url: URL,
    pool: Mapping[str, Any],
    *,
    statement_timeout: float | None,
    isolation_level: str | None = None,
    pgbouncer: bool = False,
    echo: bool = False,
) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    :param pool: SQLAlchemy's options of the pool.
    :param statement_timeout: seconds a statement may take; None: any time. SQLite has no such limit.
    :param isolation_level: of every transaction; None: the server's own. SQLite has one only.
    :param pgbouncer: the URL leads to a pgbouncer in transaction mode.
    :param echo: log every statement, without its parameters.
    """
    embedded = is_embedded(url)
    if embedded:
        arguments = {"isolation_level": None, "timeout": BUSY_TIMEOUT}
        pool = {**pool, "pool_reset_on_return": None}  # The write lock's work.
    else:
        arguments = connect_options(statement_timeout, pgbouncer=pgbouncer)
        if isolation_level is not None:
            pool = {**pool, "isolation_level": isolation_level}
    engine = create_async_engine(
        url,
        echo=echo,
        hide_parameters=True,
        json_serializer=dumps,
        json_deserializer=loads,
        connect_args=arguments,
        **pool,
    )
    event.listen(engine.sync_engine, "do_connect", _connector(describe(url)))
    if embedded:
        WriteLock(engine, BUSY_TIMEOUT)
    else:
        watch_connections(engine)
    return engine


def _connector(place: str) -> Callable[..., Any]:
    def connect(dialect: Any, _entry: Any, arguments: Any, options: Any) -> Any:
        failures = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, dialect.loaded_dbapi.Error)
        try:
            return open_connection(dialect, arguments, options)
        except failures as exc:
            reason = str(exc).split("\n", 1)[0] or type(exc).__name__
            raise DatabaseUnavailableError(f"cannot connect to {place} ({reason}); check DATABASE_URL") from exc
        except TypeError as exc:
            raise ConfigurationError(f"DATABASE_URL: {place} has an option its driver does not know ({exc})") from exc

    return connect
