"""PostgreSQL as a database that is sometimes slow, restarted, or behind pgbouncer.

A statement has a time limit on both sides. The server's own (``statement_timeout``) ends the statement and leaves the
connection usable. The driver's, a little longer, is for a server that does not answer at all; a connection that it
ended is not used again. A pooled connection whose server has hung up is replaced when it is taken from the pool. A
connection that dies, in whatever way and even while it is set up, is an error that says so.

pgbouncer in transaction mode gives each transaction whichever server connection is free. A prepared statement that
outlives its transaction is then found by nobody, or under a name that another client took first; so there every
statement goes through the unnamed one, which belongs to its transaction and leaves nothing behind.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.lost import is_lost

__all__ = ["CONNECT_TIMEOUT", "FAILURES", "connect_options", "watch_connections"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds a new connection may take."""
FAILURES: Final = (OSError, EOFError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises."""
_SERVED: Final = "agent_service_served"
_GRACE: Final = 1.0
"""Seconds beyond its own limit in which the server may still answer."""


def connect_options(statement_timeout: float | None, *, pgbouncer: bool) -> dict[str, Any]:
    """Give what asyncpg is to be called with.

    :param statement_timeout: seconds a statement may take; None: any time, as a migration needs it.
    :param pgbouncer: whether one stands in front, which also refuses settings at the start of a connection; then the
        driver alone keeps the time.
    """
    options: dict[str, Any] = {"timeout": CONNECT_TIMEOUT}
    if statement_timeout is not None:
        options["command_timeout"] = statement_timeout + (0 if pgbouncer else _GRACE)
        if not pgbouncer:
            options["server_settings"] = {"statement_timeout": str(round(statement_timeout * 1000))}
    if pgbouncer:
        unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        options |= {"statement_cache_size": 0, **unnamed}
    return options


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
