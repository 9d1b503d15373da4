"""Opening a connection so that a cancelled caller leaks nothing: no socket, file or thread."""

import asyncio
import sqlite3
from typing import Any, Final

from sqlalchemy.util import await_only, greenlet_spawn

from agent_service.infrastructure.database.sqlite.connection import SqliteConnection, until_done
from agent_service.infrastructure.database.sqlite.file import make_private
from agent_service.infrastructure.database.sqlite.functions import prepare_connection

__all__ = ["open_connection"]

PATIENCE: Final = 1.0
"""Seconds a cancelled caller waits for its connection to be open, and so closable, before it is abandoned."""


def open_connection(dialect: Any, arguments: Any, options: Any) -> Any:
    """Open a connection, as SQLAlchemy's ``do_connect`` asks for it; SQLite's is prepared as well.

    Drivers lose track of a connection whose opening is cancelled, so it is opened by a task that cancelling the caller
    does not reach, and closed by the caller once it is open.
    """
    if dialect.name == "sqlite":
        make_private(arguments[0], options)
        # aiosqlite's thread outlives a failed opening and then calls a loop that may have ended: fail without it.
        sqlite3.connect(*arguments, **options).close()
    opening = asyncio.ensure_future(greenlet_spawn(_open, dialect, arguments, options))
    try:
        return await_only(asyncio.shield(opening))
    except asyncio.CancelledError:
        await_only(_discard(opening))
        raise


def _open(dialect: Any, arguments: Any, options: Any) -> Any:
    connection = dialect.connect(*arguments, **options)
    if dialect.name != "sqlite":
        return connection
    try:
        prepared = SqliteConnection.over(connection)
        prepare_connection(prepared)
    except BaseException:
        connection.close()
        raise
    return prepared


async def _discard(opening: "asyncio.Future[Any]") -> None:
    """Close the connection once it is open, also where the caller is cancelled again."""
    await until_done(opening, PATIENCE)
    if not opening.done():
        opening.cancel()
    elif not opening.cancelled() and opening.exception() is None:
        closing = asyncio.ensure_future(greenlet_spawn(opening.result().close))
        await until_done(closing, PATIENCE)
        if closing.done() and not closing.cancelled():
            closing.exception()  # Marks it as seen: the caller is told the cancellation.
