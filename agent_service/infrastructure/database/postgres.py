"""PostgreSQL as a database that is sometimes slow, restarted, or behind pgbouncer.

A statement has a time limit on both sides. The server's own (``statement_timeout``) ends the statement and leaves the
connection usable. The driver's, a little longer, is for a server that does not answer at all; a connection that it
ended is not used again. A pooled connection whose server has hung up is replaced when it is taken from the pool.

pgbouncer in transaction mode gives each transaction whichever server connection is free. A prepared statement that
outlives its transaction is then found by nobody, or under a name that another client took first; so there every
statement goes through the unnamed one, which belongs to its transaction and leaves nothing behind.
"""

from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["CONNECT_TIMEOUT", "connect_options", "watch_connections"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds a new connection may take."""
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


def watch_connections(engine: AsyncEngine) -> None:
    """Have the engine drop connections that cannot be used any more, one by one."""
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _abandon_unanswered)


def _refuse_closed(connection: Any, _entry: Any, _proxy: Any) -> None:
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server hung up")


def _abandon_unanswered(context: ExceptionContext) -> Exception | None:
    """Make the driver's TimeoutError an error of the statement, which a caller's own TimeoutError is not."""
    silence = context.original_exception
    if not isinstance(silence, TimeoutError):
        return None
    context.is_disconnect = True
    context.invalidate_pool_on_disconnect = False
    return OperationalError(context.statement, None, silence, hide_parameters=True, connection_invalidated=True)
