"""Creating an engine for a URL, configured as the statements of this package need it."""

import os
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.core.urls.database import DatabaseTarget
from agent_service.infrastructure.database.engine.servers import note_engine
from agent_service.infrastructure.database.errors.lost import FAILURES
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.errors.translation import PGBOUNCER_REMEDY
from agent_service.infrastructure.database.postgres.connections import (
    NAME,
    NAME_SAYS_TENANT,
    connect_options,
    watch_connections,
)
from agent_service.infrastructure.database.sqlite.opening import open_connection
from agent_service.infrastructure.database.sqlite.write_lock import BUSY_TIMEOUT, WriteLock
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.values.documents import dumps, read_json

__all__ = ["create_engine"]

_FILES: Final = {"sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"}


def create_engine(
    target: DatabaseTarget,
    pool: Mapping[str, Any],
    *,
    setting: str,
    statement_timeout: float | None,
    isolation_level: str = LEVEL,
    pgbouncer: bool = False,
    says_tenant: bool = False,
    echo: bool = False,
) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    :param pool: SQLAlchemy's options of the pool.
    :param setting: where the URL comes from, for errors.
    :param statement_timeout: seconds a statement may take; None: any time. SQLite has no such limit.
    :param isolation_level: of every transaction of PostgreSQL. SQLite has one only.
    :param pgbouncer: the URL leads to a pgbouncer in transaction mode.
    :param says_tenant: its transactions say which tenant they work for; PostgreSQL shows it in the connections' name.
    :param echo: log every statement, without its parameters.
    """
    arguments: dict[str, Any]
    if target.embedded:
        query = {name: str(value) for name, value in target.options.items()}
        url = URL.create(target.scheme, database=target.database or None, query=query)
        arguments = {"isolation_level": None, "timeout": BUSY_TIMEOUT}
        pool = {**pool, "pool_reset_on_return": None}  # The write lock's work.
    else:
        url = URL.create(target.scheme, target.username, target.password, database=target.database or None)
        name = NAME_SAYS_TENANT if says_tenant else NAME
        arguments = connect_options(target, statement_timeout, pgbouncer=pgbouncer, name=name)
        pool = {**pool, "isolation_level": isolation_level}
    engine = create_async_engine(
        url,
        echo=echo,
        hide_parameters=True,
        json_serializer=dumps,
        json_deserializer=read_json,
        connect_args=arguments,
        **pool,
    )
    note_engine(engine.sync_engine, target, pool.get("pool_size", 0) + pool.get("max_overflow", 0))
    unavailable = partial(_unavailable, target, setting, pgbouncer)
    event.listen(engine.sync_engine, "do_connect", _connector(unavailable))
    if target.embedded:
        WriteLock(engine, BUSY_TIMEOUT)
    else:
        watch_connections(engine, unavailable)
    return engine


def _unavailable(target: DatabaseTarget, setting: str, pgbouncer: bool, exc: BaseException) -> DatabaseUnavailableError:
    reason = _unreadable_file(target, exc) or reason_of(exc)
    remedy = f"check {setting}"
    if "unsupported startup parameter" in reason and not pgbouncer:
        remedy = PGBOUNCER_REMEDY
    return DatabaseUnavailableError(f"cannot connect to {target} ({reason}); {remedy}")


def _unreadable_file(target: DatabaseTarget, exc: BaseException) -> str | None:
    """Name the option whose file could not be read; the driver does not say which."""
    if isinstance(exc, FileNotFoundError | PermissionError):
        for name in _FILES & target.options.keys():
            if not os.access(target.options[name], os.R_OK):
                return f"{name}: the file {target.options[name]!r:.200} cannot be read"
    return None


def _connector(unavailable: Callable[[BaseException], DatabaseUnavailableError]) -> Callable[..., Any]:
    def connect(dialect: Any, _entry: Any, arguments: Any, options: Any) -> Any:
        try:
            return open_connection(dialect, arguments, options)
        except (*FAILURES, sqlite3.Error, dialect.loaded_dbapi.Error) as exc:
            raise unavailable(exc) from exc

    return connect
