"""Connections to a PostgreSQL that may be slow, restarted, or behind pgbouncer.

A statement has a time limit on both sides. The server's own (``statement_timeout``) ends the statement and leaves the
connection usable. The driver's, a little longer, is for a server that does not answer at all; a connection that it
ended is not used again. A pooled connection whose server has hung up is replaced when it is taken from the pool. A
connection that dies, in whatever way and even while it is set up, is an error that says so.

pgbouncer in transaction mode gives each transaction whichever server connection is free. A prepared statement that
outlives its transaction is then missing, or its name is taken by another client. So there every statement uses the
unnamed prepared statement, which ends with its transaction.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.urls.database import SYSTEM_CERTIFICATES, DatabaseTarget
from agent_service.infrastructure.database.errors.lost import FAILURES, is_lost

__all__ = ["CONNECT_TIMEOUT", "NAME", "NAME_SAYS_TENANT", "POOLED", "connect_options", "watch_connections"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds a new connection may take, unless the URL says ``connect_timeout``."""
POOLED: Final = "agent_service_pooled"
"""Execution option: behind a pgbouncer in transaction mode, so settings of a connection do not last."""
NAME: Final = "agent_service"
"""PostgreSQL's ``application_name`` of connections whose URL says none."""
NAME_SAYS_TENANT: Final = "agent_service with DB_ROW_SECURITY"
"""``application_name`` of connections whose transactions set their tenant."""
_SERVED: Final = "agent_service_served"
_GRACE: Final = 1.0
"""Seconds beyond its own limit in which the server may still answer."""
_SERVER_SETTINGS: Final = ("application_name", "options")
_DEFAULT_PORT: Final = 5432
_CACHES: Final = ("prepared_statement_cache_size", "statement_cache_size")


def connect_options(
    target: DatabaseTarget, statement_timeout: float | None, *, pgbouncer: bool, name: str = NAME
) -> dict[str, Any]:
    """Return the arguments for asyncpg, besides user name, password and database.

    :param target: where the database is; its ``options`` are libpq's.
    :param statement_timeout: seconds a statement may take; None: any time, as a migration needs it.
    :param pgbouncer: whether the URL leads to one. It also refuses settings at the start of a connection, so that only
        the driver limits the time of a statement.
    :param name: the ``application_name``, where the target has none.
    """
    given = dict(target.options)
    options: dict[str, Any] = {"timeout": given.pop("connect_timeout", CONNECT_TIMEOUT)}
    options |= {name: given.pop(name) for name in _CACHES if name in given}
    server_settings: dict[str, str] = {"application_name": name}
    server_settings |= {setting: given.pop(setting) for setting in _SERVER_SETTINGS if setting in given}
    if not pgbouncer:
        # For statements without BEGIN; transactions set it in BEGIN. See transactions/isolation.py.
        server_settings["default_transaction_isolation"] = "read committed"
    if statement_timeout is not None:
        options["command_timeout"] = statement_timeout + (0 if pgbouncer else _GRACE)
        if not pgbouncer:
            server_settings["statement_timeout"] = str(to_milliseconds(statement_timeout))
    options["server_settings"] = server_settings
    if pgbouncer:
        unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        options |= {"statement_cache_size": 0, **unnamed}
    if given.get("sslrootcert") == SYSTEM_CERTIFICATES:
        del given["sslrootcert"], given["sslmode"]
        options["ssl"] = ssl.create_default_context()  # once: it takes tens of milliseconds
    if given:
        options["dsn"] = f"postgresql://?{urlencode(given)}"  # asyncpg reads libpq's parameters here only
    return options | _addresses(target)


def _addresses(target: DatabaseTarget) -> dict[str, Any]:
    hosts = [host for host, _ in target.hosts if host]
    ports = [port or _DEFAULT_PORT for _, port in target.hosts]
    if len(ports) == 1 and target.hosts[0][1] is None:
        return {"host": hosts}  # PGPORT may say where
    return ({"host": hosts} if hosts else {}) | ({"port": ports if hosts else ports[0]} if ports else {})


def watch_connections(engine: AsyncEngine, unavailable: Callable[[BaseException], DatabaseUnavailableError]) -> None:
    """Have the engine drop connections that cannot be used any more, one by one.

    :param unavailable: makes the error for a connection that dies while it is made.
    """
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _abandon_lost)
    dialect: Any = engine.dialect
    for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
        # SQLAlchemy lets the driver's errors through there.
        setattr(dialect, name, _translated(getattr(dialect, name), unavailable))


def _translated(
    set_up: Callable[[Any], Awaitable[None]], unavailable: Callable[[BaseException], DatabaseUnavailableError]
) -> Callable[[Any], Awaitable[None]]:
    async def translated(connection: Any) -> None:
        try:
            await set_up(connection)
        except FAILURES as exc:
            raise unavailable(exc) from exc

    return translated


def _refuse_closed(connection: Any, entry: Any, _proxy: Any) -> None:
    if not connection.driver_connection.is_closed():
        entry.info[_SERVED] = True
    elif _SERVED in entry.info:
        raise DisconnectionError("the server hung up")
    else:
        raise DatabaseUnavailableError("the database accepted a connection and closed it at once")


def _abandon_lost(context: ExceptionContext) -> Exception | None:
    """Have a lost connection replaced, and make what the driver raised an error of the statement."""
    failure = context.original_exception
    if not is_lost(failure):
        return None
    if not context.is_disconnect:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
    if context.sqlalchemy_exception is not None:
        return None
    return OperationalError(context.statement, None, failure, hide_parameters=True, connection_invalidated=True)
