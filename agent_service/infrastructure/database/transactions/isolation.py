"""The isolation level that our statements need, and how transactions with another level are handled.

A statement that takes a session's next number waits for the transaction that holds the row, and then needs to see what
that one committed: READ COMMITTED does. Under REPEATABLE READ and SERIALIZABLE, PostgreSQL refuses it instead (SQLSTATE
40001), because the transaction's snapshot is older. So the transactions of this package are READ COMMITTED, whatever
the server, the role or the engine has as its default: it is said in BEGIN, and where there is none, when the connection
is opened, so it costs no round trip.

A transaction of the caller's keeps the level that the caller chose. Where our statement is the first in it, nothing is
lost by beginning it again; later on only the caller can repeat what was read and decided, and is told so.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from agent_service.infrastructure.database.errors.retrying import pause_before
from agent_service.infrastructure.database.errors.translation import OVERTAKEN_STATES
from agent_service.infrastructure.database.sqlite.connection import SqliteConnection
from agent_service.infrastructure.database.transactions.tenants import say_tenant_again

__all__ = ["LEVEL", "one_snapshot", "read_committed", "run_first"]

T = TypeVar("T")

LEVEL: Final = "READ COMMITTED"
_ATTEMPTS: Final = 100


async def read_committed(db: AsyncSession) -> None:
    """Begin a transaction of the package's own in a session that may be of another level; nothing was done in it yet.

    A session over a connection whose transaction has begun keeps that one's.
    """
    bind = db.get_bind()
    if bind.dialect.name == "postgresql" and isinstance(bind, Engine) and not db.in_transaction():
        await db.connection(execution_options={"isolation_level": LEVEL})


async def one_snapshot(db: AsyncSession) -> None:
    """Begin a transaction whose reads all see the same moment; nothing was done in the session yet.

    It is for reading only: what is written in it may be refused, because somebody else has written meanwhile.
    """
    if db.get_bind().dialect.name == "postgresql":
        await db.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    else:
        await (await db.connection()).run_sync(_begin_reading)


def _begin_reading(connection: Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    if isinstance(driver, SqliteConnection):
        if not driver.in_transaction:  # Listeners of an engine of the caller's own may have begun it.
            driver.begin_reading()
    elif not driver.driver_connection.in_transaction:
        connection.exec_driver_sql("BEGIN")


def run_first(db: Session, work: Callable[[Connection], T]) -> T:
    """Do some work in the session's transaction; if it comes first there, repeat it after serialization failures.

    With READ COMMITTED that never happens, but for deadlocks.

    :param work: statements that may be repeated once their transaction was rolled back.
    """
    if db.new or db.dirty:
        db.flush()
    first = db.get_transaction() is None
    connection = db.connection()
    if not first or connection.dialect.name != "postgresql":
        return work(connection)
    for attempt in range(1, _ATTEMPTS):
        try:
            return work(connection)
        except DBAPIError as exc:
            if exc.connection_invalidated or getattr(exc.orig, "sqlstate", None) not in OVERTAKEN_STATES:
                raise
        # The transaction of the driver, in which nothing else was done; the session's goes on, with what it has loaded.
        driver: Any = connection.connection
        driver.rollback()
        say_tenant_again(db, connection)
        await_only(asyncio.sleep(pause_before(min(attempt, 3))))
    return work(connection)
