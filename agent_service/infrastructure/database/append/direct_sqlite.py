"""Committing batches on SQLite by a connection with a thread of its own: each is one visit to it.

A driver for asyncio visits its thread for each statement, which costs more than the statement. The connection is
beside the engine's pool and queues for the same write lock. It also updates the search index while there is nothing to
append.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.append.batch import Batch, Place
from agent_service.infrastructure.database.append.sqlite import append_locked, run_with_names
from agent_service.infrastructure.database.append.work import Work
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.naming.engines import names_of, naming_of
from agent_service.infrastructure.database.naming.names import TableNames
from agent_service.infrastructure.database.queries.search_index import INDEX_OLDEST
from agent_service.infrastructure.database.sqlite.busy import patiently
from agent_service.infrastructure.database.sqlite.connection import PATIENCE, until_done
from agent_service.infrastructure.database.sqlite.write_lock import BUSY_TIMEOUT, is_free, write_turn

__all__ = ["DirectSqlite"]

A = TypeVar("A")
T = TypeVar("T")

_SLICE: Final = 100
"""Messages that are indexed at once: a few milliseconds, which an append may have to wait."""


class DirectSqlite:
    """Commits through one connection, for one task at a time; after an error it opens another. The file is migrated."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="session-writer")
        self._connection: sqlite3.Connection | None = None
        self._names: TableNames | None = None
        self.behind = True
        """Whether there may be messages to index."""

    async def append(self, batch: Batch) -> list[Place | None]:
        """Append and commit.

        :raises DBAPIError: the database refused it.
        :raises DatabaseUnavailableError: another process or task kept the write lock.
        """
        self.behind = True
        names = await self._find_names()
        async with write_turn(self._engine):
            return await self._visit(names, lambda run: append_locked(run, batch))

    async def commit(self, tenant_id: str, work: Work) -> None:
        """Do some work and commit it, with the errors of :meth:`append`.

        :param tenant_id: whose rows they are; the work knows it.
        """
        del tenant_id
        names = await self._find_names()
        async with write_turn(self._engine):
            await self._visit(names, work.locked)

    async def read(self, query: Callable[[Connection, str, A], T], tenant_id: str, argument: A) -> T:
        """Call a function that reads rows of a tenant."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(query, tenant_id, argument)

    async def catch_up(self) -> None:
        """Index some of what was appended, unless someone is writing; ``behind`` says whether there may be more.

        :raises DatabaseUnavailableError: another process is writing.
        """
        if not is_free(self._engine):
            return
        names = await self._find_names()
        async with write_turn(self._engine):
            indexed = await self._visit(names, lambda run: run(INDEX_OLDEST, (_SLICE,)).rowcount, patience=0)
        self.behind = indexed == _SLICE

    async def close(self) -> None:
        """Close the connection and end the thread."""
        disconnected = asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)
        await asyncio.shield(disconnected)

    async def _find_names(self) -> TableNames:
        # A manager that has migrated the file knows them, so this takes no connection of its pool.
        found = self._names or naming_of(self._engine.sync_engine).found
        if found is None:
            async with self._engine.connect() as connection:
                found = await connection.run_sync(names_of)
        self._names = found
        return found

    async def _visit(
        self, names: TableNames, work: Callable[[Callable[..., Any]], T], *, patience: float = BUSY_TIMEOUT
    ) -> T:
        """Do the work in a transaction, in the thread. A cancelled caller leaves when it is done or undone."""
        left = threading.Event()
        visit = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, names, work, patience, left)
        try:
            return await asyncio.shield(visit)
        except asyncio.CancelledError:
            left.set()
            if self._connection is not None:
                self._connection.interrupt()
            visit.add_done_callback(_look)
            await until_done(visit, PATIENCE)
            raise

    def _commit(
        self, names: TableNames, work: Callable[[Callable[..., Any]], T], patience: float, left: threading.Event
    ) -> T:
        try:
            connection = self._connect()
            self._begin(connection, patience, left)
            result = work(partial(run_with_names, connection, names))
            connection.execute("COMMIT")
        except sqlite3.Error as exc:
            self._disconnect()
            raise DBAPIError(None, None, exc, hide_parameters=True) from exc
        except BaseException:
            self._disconnect()
            raise
        return result

    def _begin(self, connection: sqlite3.Connection, patience: float, left: threading.Event) -> None:
        try:
            begin = partial(connection.execute, "BEGIN IMMEDIATE")
            patiently(connection, begin, wanted=lambda: not left.is_set(), patience=patience)
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc):
                raise
            raise DatabaseUnavailableError(
                f"no other process let go of the database's write lock within {patience:g} s ({reason_of(exc)})"
            ) from exc

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            dialect: Any = self._engine.dialect
            arguments, options = dialect.create_connect_args(self._engine.url)
            self._connection = sqlite3.connect(*arguments, **{**options, "isolation_level": None})
            self._connection.execute("PRAGMA foreign_keys = ON")
        return self._connection

    def _disconnect(self) -> None:
        """Roll back what was not committed, and close the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            # Closing does not, as long as a cursor is open: the traceback of an error may hold one.
            with suppress(sqlite3.Error):
                connection.rollback()
            connection.close()


def _look(visit: "asyncio.Future[Any]") -> None:
    """Mark the error of an abandoned visit as seen, so that asyncio does not log it."""
    if not visit.cancelled():
        visit.exception()
