"""Cursors of SQLite as SQLAlchemy uses them: a statement is one visit to the connection's thread."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from agent_service.infrastructure.database.sqlite.busy import may_write

__all__ = ["SqliteCursor", "SqliteStream", "StatementResult", "Visits"]

T = TypeVar("T")


class StatementResult(NamedTuple):
    """The complete result of a statement whose cursor is closed."""

    description: Any
    rowcount: int
    lastrowid: int | None
    rows: list[Any]


class Visits(Protocol):
    """What cursors ask of their connection, each a visit to its thread; described where it is done."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    @property
    def undone(self) -> bool:
        """Whether a cancelled task's transaction was rolled back and the task has not reacted yet."""
        ...

    def run(self, step: Callable[[sqlite3.Cursor], object], *, waits: bool = True) -> StatementResult:
        """Run a statement with a cursor of its own."""
        ...

    def open_stream(self) -> sqlite3.Cursor:
        """Return a cursor that stays open."""
        ...

    def stream(self, step: Callable[[], T]) -> T:
        """Run a step of an open cursor."""
        ...

    def close_stream(self, cursor: sqlite3.Cursor) -> None:
        """Close an open cursor."""
        ...


class SqliteCursor:
    """Runs statements, each in one visit."""

    __slots__ = ("_answer", "_connection", "_rows")

    server_side = False
    arraysize = 1

    def __init__(self, connection: Visits) -> None:
        self._connection = connection
        self._answer = StatementResult(None, -1, None, [])
        self._rows: deque[Any] = deque()

    @property
    def description(self) -> Any:
        """The columns of the rows, or None."""
        return self._answer.description

    @property
    def rowcount(self) -> int:
        """Rows that were changed, or -1."""
        return self._answer.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row that was inserted last."""
        return self._answer.lastrowid

    def execute(self, operation: str, parameters: Any = None) -> None:
        """Run a statement."""
        self._run(operation, lambda cursor: cursor.execute(operation, () if parameters is None else parameters))

    def executemany(self, operation: str, seq_of_parameters: Any) -> None:
        """Run a statement with each of several sets of parameters."""
        self._run(operation, lambda cursor: cursor.executemany(operation, seq_of_parameters))

    def _run(self, operation: str, step: Callable[[sqlite3.Cursor], object]) -> None:
        connection = self._connection
        if connection.undone and operation.lstrip()[:8].upper() == "ROLLBACK":
            return  # to a savepoint: it is gone with its transaction
        # A transaction that has begun to write holds the lock already.
        self._answer = connection.run(step, waits=not connection.in_transaction and may_write(operation))
        self._rows = deque(self._answer.rows)

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        wanted = self.arraysize if size is None else size
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        rows, self._rows = list(self._rows), deque()
        return rows

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    def close(self) -> None:
        """Drop what was not fetched."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Do nothing: no cursor is open."""


class SqliteStream:
    """Keeps a statement open between visits, as streaming does. The connection knows of it, and closes it."""

    __slots__ = ("_connection", "_cursor")

    server_side = True

    def __init__(self, connection: Visits) -> None:
        self._connection = connection
        self._cursor = connection.open_stream()

    @property
    def description(self) -> Any:
        """The columns of the rows, or None."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """Rows that were changed, or -1."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row that was inserted last."""
        return self._cursor.lastrowid

    def execute(self, operation: str, parameters: Any = None) -> None:
        """Run a statement."""
        values = () if parameters is None else parameters
        self._connection.stream(partial(self._cursor.execute, operation, values))

    def executemany(self, operation: str, seq_of_parameters: Any) -> None:
        """Run a statement with each of several sets of parameters."""
        self._connection.stream(partial(self._cursor.executemany, operation, seq_of_parameters))

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._connection.stream(self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        return self._connection.stream(partial(self._cursor.fetchmany, 1 if size is None else size))

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return self._connection.stream(self._cursor.fetchall)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Drop what was not fetched."""
        self._connection.close_stream(self._cursor)
