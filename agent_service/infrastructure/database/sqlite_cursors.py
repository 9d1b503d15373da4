"""Cursors of SQLite as SQLAlchemy uses them: a statement is one visit to the connection's thread."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_cursor, AsyncAdapt_aiosqlite_ss_cursor

from agent_service.infrastructure.database.sqlite_busy import may_write

if TYPE_CHECKING:
    from agent_service.infrastructure.database.sqlite_connection import SqliteConnection

__all__ = ["Answer", "SqliteCursor", "SqliteStream"]


class Answer(NamedTuple):
    """What there is to know of a statement once its cursor is closed."""

    description: Any
    rowcount: int
    lastrowid: int | None
    rows: list[Any]


class SqliteCursor(AsyncAdapt_aiosqlite_cursor):
    """Runs statements, each in one visit."""

    __slots__ = ("_answer",)

    arraysize = 1
    _adapt_connection: "SqliteConnection"

    def __init__(self, adapt_connection: "SqliteConnection") -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection.driver_connection
        self._rows = deque()
        self._answer = Answer(None, -1, None, [])

    @property
    def description(self) -> Any:
        return self._answer.description

    @property
    def rowcount(self) -> int:
        return self._answer.rowcount

    @property
    def lastrowid(self) -> Any:
        return self._answer.lastrowid

    def execute(self, operation: Any, parameters: Any = None) -> None:
        self._run(operation, lambda cursor: cursor.execute(operation, () if parameters is None else parameters))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        self._run(operation, lambda cursor: cursor.executemany(operation, seq_of_parameters))

    def _run(self, operation: str, step: Callable[[sqlite3.Cursor], object]) -> None:
        connection = self._adapt_connection
        if connection.undone and operation.lstrip()[:8].upper() == "ROLLBACK":
            return  # to a savepoint: it is gone with its transaction
        # Who has begun to write does not wait for others any more.
        self._answer = connection.run(step, waits=not connection.in_transaction and may_write(operation))
        self._rows = deque(self._answer.rows)

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Do nothing: no cursor is open."""


class SqliteStream(AsyncAdapt_aiosqlite_ss_cursor):
    """Keeps a statement open between visits, as streaming does. The connection knows of it, and closes it."""

    __slots__ = ()

    _adapt_connection: "SqliteConnection"
    _cursor: Any
    _soft_closed_memoized: Any

    def __init__(self, adapt_connection: "SqliteConnection") -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection.driver_connection
        self._soft_closed_memoized = {}
        self._cursor = adapt_connection.open_stream()

    def execute(self, operation: Any, parameters: Any = None) -> None:
        cursor, values = self._cursor, () if parameters is None else parameters
        self._adapt_connection.stream(lambda: cursor.execute(operation, values))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        cursor = self._cursor
        self._adapt_connection.stream(lambda: cursor.executemany(operation, seq_of_parameters))

    def fetchone(self) -> Any:
        return self._adapt_connection.stream(self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._adapt_connection.stream(partial(self._cursor.fetchmany, self.arraysize if size is None else size))

    def fetchall(self) -> Any:
        return self._adapt_connection.stream(self._cursor.fetchall)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        if self._cursor is not None:
            cursor, self._cursor = self._cursor, None
            self._adapt_connection.close_stream(cursor)
