"""Keeping connections whose statement was cancelled, on engines of ours and of the caller's own.

SQLAlchemy would close such a connection. Those of ``connection.py`` roll back and can go on, and a database in memory
lives in its one connection.
"""

import asyncio
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.sqlite.connection import SqliteConnection

__all__ = ["keep_clean", "keep_connections", "keep_session_clean"]

_kept: "WeakSet[Dialect]" = WeakSet()
"""Of engines whose connections are kept."""


def keep_connections(engine: Engine) -> None:
    """Have an engine keep connections whose statement was cancelled; all of its connections are ours."""
    _kept.add(engine.dialect)
    event.listen(engine, "handle_error", _keep_connection)


def keep_clean(engine: Engine) -> None:
    """Have any engine leave connections clean when a task is cancelled, from their next use on."""
    dialect = engine.dialect
    if dialect.driver == "aiosqlite" and dialect not in _kept:
        keep_connections(engine)
        event.listen(engine.pool, "checkout", _take_over)


def keep_session_clean(db: AsyncSession) -> None:
    """Do so for the engine of a session, if the session has one."""
    if "database" not in db.info:  # Sessions of a DatabaseManager name it.
        with suppress(UnboundExecutionError):
            keep_clean(db.get_bind().engine)


def _take_over(connection: Any, entry: Any, proxy: Any) -> None:
    if not isinstance(connection, SqliteConnection):
        entry.dbapi_connection = proxy.dbapi_connection = SqliteConnection.over(connection)


def _keep_connection(context: ExceptionContext) -> None:
    if isinstance(context.original_exception, asyncio.CancelledError):
        context.is_disconnect = False
