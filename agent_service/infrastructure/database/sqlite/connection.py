"""SQLite connections that a cancelled task leaves clean.

A connection of aiosqlite does its work in a thread. SQLAlchemy visits it several times for a statement: to make a
cursor, to execute, to fetch, to close. A task that is cancelled between two visits leaves the statement unfinished, and
SQLite's lock held, until the garbage collector finds the cursor.

Here a statement is one visit, which ends without a cursor. A cancelled task interrupts its visit and sends another one
after it that rolls the transaction back, before any other task's. What else the task tries in that transaction is
refused until it rolls back as well. SQLite waits for locks in short intervals, so that an abandoned visit ends.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, TypeVar

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.util import await_only

from agent_service.core.deadline import Deadline
from agent_service.infrastructure.database.sqlite.busy import patiently
from agent_service.infrastructure.database.sqlite.cursors import SqliteCursor, SqliteStream, StatementResult

__all__ = ["PATIENCE", "SqliteConnection", "until_done"]

T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds a cancelled task waits for its transaction to be rolled back; it happens in any case."""


async def until_done(future: "asyncio.Future[Any]", seconds: float) -> None:
    """Wait for a future, not longer than that, whatever cancels the waiting task."""
    deadline = Deadline.after(seconds)
    while not future.done() and (left := deadline.left) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({future}, timeout=left)


class SqliteConnection(AsyncAdapt_aiosqlite_connection):
    """A connection of aiosqlite as SQLAlchemy uses it, clean whenever it is taken from the pool."""

    __slots__ = ("_rolling_back", "_streams", "_undone")

    _undone: bool
    _rolling_back: "asyncio.Future[bool] | None"
    _streams: set[sqlite3.Cursor]

    @classmethod
    def over(cls, connection: AsyncAdapt_aiosqlite_connection) -> Self:
        """Take over an idle connection."""
        made = cls(connection.dbapi, connection.driver_connection)
        made._undone, made._rolling_back, made._streams = False, None, set()
        return made

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._connection.in_transaction)

    @property
    def undone(self) -> bool:
        """Whether a cancelled task's transaction was rolled back and the task has not reacted yet."""
        return self._undone

    def run(self, step: Callable[[sqlite3.Cursor], object], *, waits: bool = True) -> StatementResult:
        """Run a statement with a cursor, and return its complete result.

        :param waits: whether it may have to wait for the write lock.
        """
        self._require_whole()
        return self._wait_for(partial(_statement, step, waits))

    def begin(self) -> None:
        """Begin a transaction that holds the write lock."""
        self.run(lambda cursor: cursor.execute("BEGIN IMMEDIATE"))

    def begin_reading(self) -> None:
        """Begin a transaction whose reads all see the same moment, without the write lock."""
        self.run(lambda cursor: cursor.execute("BEGIN"), waits=False)

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor; one that fetches row by row if it is ``server_side``."""
        return SqliteStream(self) if server_side else SqliteCursor(self)

    def visit_with_cursor(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Do several statements with one cursor, in a transaction that has begun to write."""
        self._require_whole()
        return self._wait_for(partial(_with_cursor, work))

    def open_stream(self) -> sqlite3.Cursor:
        """Return a cursor that stays open."""
        self._require_whole()
        cursor = self._wait_for(lambda raw, _: raw.cursor())
        self._streams.add(cursor)
        return cursor

    def stream(self, step: Callable[[], T]) -> T:
        """Do a step of an open cursor."""
        self._require_whole()
        return self._wait_for(lambda _raw, _wanted: step())

    def close_stream(self, cursor: sqlite3.Cursor) -> None:
        """Close a cursor, unless it was closed with its transaction."""
        if cursor in self._streams:
            self._streams.discard(cursor)
            self._wait_for(lambda _raw, _wanted: cursor.close())

    def commit(self) -> None:
        """Commit, if a transaction is open."""
        self._require_whole()
        try:
            if self._connection.in_transaction:
                self._wait_for(lambda raw, _: raw.commit(), interrupt=False)
        finally:
            self._undone = False  # However it ended, the transaction is over.

    def rollback(self) -> None:
        """Roll back, if a transaction is open."""
        undoing = self._rolling_back is not None and not self._rolling_back.done()
        try:
            if self._connection._connection is not None and not undoing and self.in_transaction:  # noqa: SLF001
                self._wait_for(lambda raw, _: raw.rollback(), interrupt=False)
        finally:
            self._undone = False

    def close(self) -> None:
        """Close what is open, and the connection."""
        self._close_streams()
        super().close()

    async def _terminate_graceful_close(self) -> None:
        self._close_streams()
        await super()._terminate_graceful_close()

    def _terminate_force_close(self) -> None:
        # The close that a cancelled task began goes on by itself; a thread that is stopped would never answer it.
        if not isinstance(sys.exception(), asyncio.CancelledError):
            super()._terminate_force_close()

    async def visit(self, work: Callable[[sqlite3.Connection, Callable[[], bool]], T], *, interrupt: bool = True) -> T:
        """Have the thread do some work. If this task is cancelled, its transaction is rolled back first.

        :param work: gets the connection, and what tells whether it is still wanted.
        :param interrupt: end the work early then. Work that was begun is else done to its end.
        """
        driver = self._connection
        if not driver._running or driver._connection is None:  # noqa: SLF001 - as SQLAlchemy's own adapter asks
            raise sqlite3.OperationalError("connection closed")
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        driver._tx.put_nowait((asked, partial(_unless_cancelled, asked, work, driver._connection)))  # noqa: SLF001
        try:
            return await asked
        except asyncio.CancelledError:
            asked.cancel()
            await self._undo(driver, interrupt=interrupt)
            raise

    async def _undo(self, driver: Any, *, interrupt: bool) -> None:
        unfinished = interrupt and driver.in_transaction
        self._undone = True
        if interrupt:
            driver._connection.interrupt()  # noqa: SLF001
        # The thread works in order, so this is done before anything that is queued from now on.
        undone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        streams, self._streams = self._streams, set()
        driver._tx.put_nowait((undone, partial(_roll_back, driver._connection, streams)))  # noqa: SLF001
        self._rolling_back = undone
        await until_done(undone, PATIENCE)
        if undone.done():
            self._undone = unfinished or undone.result()

    def _wait_for(self, work: Callable[[sqlite3.Connection, Callable[[], bool]], T], *, interrupt: bool = True) -> T:
        return await_only(self.visit(work, interrupt=interrupt))

    def _close_streams(self) -> None:
        streams, self._streams = self._streams, set()
        if streams:
            self._connection._tx.put_nowait((None, partial(_close_all, streams)))  # noqa: SLF001

    def _require_whole(self) -> None:
        if self._undone:
            raise sqlite3.OperationalError(
                "a statement of this transaction was cancelled, so all of it was rolled back; roll the session back, "
                "or leave its block, before using it again"
            )


def _with_cursor(work: Callable[[sqlite3.Cursor], T], raw: sqlite3.Connection, _wanted: Callable[[], bool]) -> T:
    cursor = raw.cursor()
    try:
        return work(cursor)
    finally:
        cursor.close()


def _statement(
    step: Callable[[sqlite3.Cursor], object], waits: bool, raw: sqlite3.Connection, wanted: Callable[[], bool]
) -> StatementResult:
    cursor = raw.cursor()
    try:
        if waits:
            patiently(raw, lambda: step(cursor), wanted=wanted)
        else:
            step(cursor)
        rows = cursor.fetchall() if cursor.description else []
        return StatementResult(cursor.description, cursor.rowcount, cursor.lastrowid, rows)
    finally:
        cursor.close()


def _unless_cancelled(
    asked: "asyncio.Future[Any]", work: Callable[[sqlite3.Connection, Callable[[], bool]], T], raw: sqlite3.Connection
) -> T | None:
    return None if asked.cancelled() else work(raw, lambda: not asked.cancelled())


def _roll_back(raw: sqlite3.Connection, streams: set[sqlite3.Cursor]) -> bool:
    """Leave nothing open; return whether there was a transaction. Never raises: the next rollback shows the error."""
    open_before = raw.in_transaction
    with suppress(sqlite3.Error):
        _close_all(streams)
        raw.rollback()
    return open_before


def _close_all(streams: set[sqlite3.Cursor]) -> None:
    for each in streams:
        each.close()
