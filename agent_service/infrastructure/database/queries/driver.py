"""One statement through the driver's own cursor: for hot paths, where a result object costs more than the row."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

__all__ = ["fetch_row", "fetch_rows"]


def fetch_row(connection: Connection, statement: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
    """Run a statement in the connection's transaction and return its first row, as :func:`fetch_rows` does."""
    return next(iter(fetch_rows(connection, statement, parameters)), None)


def fetch_rows(connection: Connection, statement: str, parameters: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
    """Run a statement in the connection's transaction and return its rows.

    As with :meth:`Connection.exec_driver_sql`, errors are those of SQLAlchemy, and a connection is not used again if it
    was lost or a cancelled task left it in the middle of the statement.
    """
    dialect = connection.dialect
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, parameters)
        return cast("Sequence[tuple[Any, ...]]", cursor.fetchall())
    except dialect.loaded_dbapi.Error as exc:
        lost = dialect.is_disconnect(exc, connection.connection, cursor)
        if lost:
            connection.invalidate(exc)
        raise DBAPIError.instance(
            statement,
            None,
            exc,
            dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=dialect,
        ) from exc
    except BaseException as exc:
        connection.invalidate(exc)
        raise
    finally:
        cursor.close()
