"""Transactions that PostgreSQL has aborted, and that somebody commits all the same.

After an error the server refuses every further statement of a transaction, but not COMMIT: it answers with a rollback,
which no driver reports. So whoever has caught the error would take for stored what is not. A transaction in which a
statement failed is therefore asked before it is committed whether it still can be: it can after a rollback to a
savepoint, or if the statement was never sent. Where nothing failed nothing is asked.
"""

from typing import Final
from weakref import WeakSet

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext, Transaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["refuse_aborted"]

_failed: Final[WeakSet[Transaction]] = WeakSet()
"""Transactions in which a statement has failed."""


def refuse_aborted(engine: AsyncEngine) -> None:
    """Have commits of aborted transactions raise the server's error, SQLSTATE 25P02."""
    event.listen(engine.sync_engine, "handle_error", _note)
    event.listen(engine.sync_engine, "commit", _ask)


def _note(context: ExceptionContext) -> None:
    transaction = None if context.connection is None else context.connection.get_transaction()
    if transaction is not None:
        _failed.add(transaction)


def _ask(connection: Connection) -> None:
    if not _failed or connection.get_transaction() not in _failed or connection.invalidated:
        return
    try:
        connection.exec_driver_sql("SELECT 1")
    except DBAPIError:
        if not connection.invalidated:
            connection.connection.rollback()  # SQLAlchemy takes a commit that failed for the end of the transaction
        raise
