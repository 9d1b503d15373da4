"""Taking locks on tables in use, with a short lock timeout and retries, so that others wait for less than a second.

A waiting table lock makes all later statements queue behind it. So the wait ends after ``LOCK_TIMEOUT``, which releases
the queue, and is tried again after a pause, until ``PATIENCE`` is over. In a deadlock the migration gives way and not
the application: PostgreSQL looks for deadlocks after ``deadlock_timeout``, and all our locks are taken within less than
that time, before anything else is done.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from agent_service.core.backoff import Backoff
from agent_service.core.deadline import Deadline
from agent_service.core.errors import DatabaseError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.infrastructure.database.naming.names import MARK, TABLES, TableNames
from agent_service.infrastructure.database.schema.blockers import blockers
from agent_service.infrastructure.database.schema.locks import Lock

__all__ = ["LOCK_TIMEOUT", "PATIENCE", "Report", "retry_for_locks", "take_locks"]

T = TypeVar("T")
Report = Callable[[str], None]
"""Takes a line about what is under way."""

LOCK_TIMEOUT: Final = 0.8
"""Seconds that a lock is waited for at a time."""
PATIENCE: Final = 60.0
"""Seconds of retries, after which it is an error."""
_PAUSES: Final = Backoff(0.1, 3.0)
_WORTH_ANOTHER_TRY: Final = ("55P03", "40P01", "40001")
"""PostgreSQL: lock not available, deadlock, serialization failure."""
_LIMITS: Final = ("SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0")
_WAIT: Final = "SET LOCAL lock_timeout = '{}ms'"
# pg_settings computes every setting of the server for each query.
_DEADLOCK_TIMEOUT: Final = (
    "SELECT CAST(extract(epoch FROM CAST(pg_catalog.current_setting('deadlock_timeout') AS interval)) AS float8)"
)


def take_locks(connection: Connection, locks: Mapping[str, Lock], *, seconds: float = LOCK_TIMEOUT) -> None:
    """Take a transaction's locks on tables; after that it may take as long as it needs.

    :param locks: by table, with ``agent_service_``.
    :param seconds: how long all of them are waited for, and then each lock on a row.
    """
    for limit in _LIMITS:
        connection.exec_driver_sql(limit)
    deadlock_timeout: float = connection.exec_driver_sql(_DEADLOCK_TIMEOUT).scalar_one()
    seconds = min(seconds, 0.8 * deadlock_timeout)
    deadline = Deadline.after(seconds)
    # In the order in which an append takes them.
    for table in sorted(locks, key=_order):
        connection.exec_driver_sql(_WAIT.format(max(to_milliseconds(deadline.left), 1)))
        connection.exec_driver_sql(f"LOCK TABLE {table} IN {locks[table].value} MODE")
    connection.exec_driver_sql(_WAIT.format(to_milliseconds(seconds)))


def _order(table: str) -> tuple[int, str]:
    name = table.removeprefix(MARK)
    return TABLES.index(name) if name in TABLES else len(TABLES), name


def retry_for_locks(
    connection: Connection,
    words: str,
    once: Callable[[], T],
    locks: Mapping[str, Lock],
    *,
    names: TableNames,
    report: Report,
    remedy: str,
) -> T:
    """Repeat a transaction until it gets its locks; between tries the connection is in no transaction.

    :param words: what it does, for errors.
    :param locks: the locks it waits for, by table, to find out who has them.
    :param report: is told each time that it has to try again.
    :param remedy: what to do once they are free, for errors.
    :raises DatabaseError: it did not get them; the message says who holds them.
    """
    deadline, failures = Deadline.after(PATIENCE), 0
    while True:
        try:
            return once()
        except DBAPIError as exc:
            connection.rollback()
            if getattr(exc.orig, "sqlstate", None) not in _WORTH_ANOTHER_TRY:
                raise
            holders = blockers(connection, names, locks)
            connection.rollback()
            if deadline.over:
                raise DatabaseError(
                    f"could not {words}: for {PATIENCE:.0f} seconds others held locks that exclude it"
                    f"{f', now {holders}' if holders else ''}; end those transactions, and {remedy}"
                ) from exc
            report(f"  waiting for {holders or 'others'}")
            await_only(asyncio.sleep(_PAUSES.pause(failures)))
            failures += 1
