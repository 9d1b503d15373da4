"""A table of text under text keys: what stores keep their documents in."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from heapq import merge
from itertools import islice
from typing import Any, Final, Self, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from agent_service.core.backoff import Backoff
from agent_service.core.errors import ConfigurationError, TransactionConflictError
from agent_service.infrastructure.database.contexts.place import find_or_make, find_own
from agent_service.infrastructure.database.contexts.rows import ABSENT, Rows, row_key, row_of
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.names import MARK, RELATIONS
from agent_service.infrastructure.database.sqlite.cancelled import keep_session_clean
from agent_service.infrastructure.database.transactions.factories import (
    SessionFactory,
    require_async_engine,
    require_async_sessions,
)
from agent_service.infrastructure.database.transactions.isolation import read_committed
from agent_service.infrastructure.database.transactions.own_sessions import accept_session, name_session

__all__ = ["OWN_TABLE", "Engine", "KeyValueTable", "OpenSession", "engine_sessions"]

T = TypeVar("T")

Engine: TypeAlias = AsyncEngine
"""What a caller's own engine is."""
OpenSession: TypeAlias = AsyncSession
"""What a caller's own session is."""

OWN_TABLE: Final = "context_store"
"""The table that the package's migrations make; whatever schema and prefix it has."""

_CHUNK: Final = 1000
_ATTEMPTS: Final = 100
_PAUSES: Final = Backoff(0.005, 0.05)

Undo: TypeAlias = Callable[[], Awaitable[None]]


def engine_sessions(engine: AsyncEngine) -> SessionFactory:
    """Return sessions of an engine."""
    require_async_engine(engine)
    return async_sessionmaker(engine, expire_on_commit=False)


class _Place:
    """Where a table is, for all who work with one, once it is known."""

    found: Rows | None = None


class KeyValueTable:
    """Reads and writes rows of one table, each call in a transaction of its own.

    Keys and values hold no U+0000 and no lone surrogates, and no value is empty.

    :param sessions: where transactions come from; they must not be nested in another one of the same task.
    :param table: the package's own table comes by migration. Any other is created when first used, in the schema and
        with the prefix of DB_SCHEMA and DB_TABLE_PREFIX; with neither set, one that is there already is used.
    :raises ConfigurationError: for a table name that cannot be one, or sessions that cannot be awaited.
    """

    def __init__(self, sessions: SessionFactory, *, table: str = OWN_TABLE) -> None:
        if not isinstance(table, str) or not 1 <= len(table) <= 63 or "\x00" in table:
            raise ConfigurationError(f"table must be a name of 1 to 63 characters, got {table!r:.80}")
        if table.startswith(MARK) and table.removeprefix(MARK) in RELATIONS:
            raise ConfigurationError(f"table {table!r} is one of the package's own; choose another name")
        self._sessions = require_async_sessions(sessions)
        self._name = table
        self._place = _Place()
        self._finding = asyncio.Lock()
        self.joined: AsyncSession | None = None
        self.savepoints = True

    def within(self, db: AsyncSession, *, savepoints: bool = True) -> Self:
        """Return the same table as seen and changed in a session's transaction, which its owner commits.

        :param savepoints: have each change in a savepoint; False: after an error the owner rolls back.
        :raises SessionValueError: ``db`` is a session that cannot be used.
        """
        bound = copy.copy(self)
        bound.joined = accept_session(db)
        bound.savepoints = savepoints
        return bound

    async def read(self, keys: Collection[str]) -> dict[str, str]:
        """Return the values under those of the keys that are there."""
        return await self._repeated(lambda: self._read(keys))

    async def _read(self, keys: Collection[str]) -> dict[str, str]:
        places = {row_key(key): key for key in keys}
        found: dict[str, str] = {}
        async with self._transaction("read") as (db, rows):
            for chunk in _chunks(places):
                found.update({places[place]: value for place, value in await db.execute(rows.read(), {"keys": chunk})})
        return found

    async def read_left(self, key: str) -> tuple[str, float | None] | None:
        """Return the value under a key and for how many seconds it is there, None: it does not expire; or None."""

        async def read() -> tuple[str, float | None] | None:
            async with self._transaction("read") as (db, rows):
                row = (await db.execute(rows.read_left(row_key(key)))).first()
                return None if row is None else (row[0], row[1])

        return await self._repeated(read)

    async def write(self, values: Mapping[str, str], *, ttl: float | None = None) -> None:
        """Store values, all of them or none.

        :param ttl: seconds after which they count as absent; None: they do not expire.
        """
        # Always in this order, so that two transactions never wait in a circle.
        order = sorted(values.items(), key=lambda item: row_key(item[0]))

        async def write() -> None:
            async with self._writing("write") as (db, rows, _):
                expiry = self._expiry(rows, ttl)
                await db.execute(rows.write(), [{**row_of(key, value), **expiry} for key, value in order])

        await self._repeated(write)

    async def remove(self, keys: Collection[str]) -> int:
        """Remove rows; return how many there were."""
        places = sorted(map(row_key, keys))

        async def remove() -> int:
            removed = 0
            async with self._writing("delete") as (db, rows, _):
                for chunk in _chunks(places):
                    removed += sum(map(bool, await db.scalars(rows.remove(chunk))))
            return removed

        return await self._repeated(remove)

    async def remove_expired(self, size: int) -> int:
        """Remove at most ``size`` rows whose time is over; return how many."""
        async with self._writing("delete") as (db, rows, _):
            if not rows.expire:
                return 0
            result: Any = await db.execute(rows.remove_expired(size))
            return int(result.rowcount)

    async def change(
        self, key: str, change: Callable[[str | None], str | None], *, ttl: float | None = None, keep: bool = False
    ) -> None:
        """Apply ``change`` to a value while the row is locked.

        :param change: takes the value (None: there is none) and returns what shall be (None: leave it; "": none). It
            may be called again, where another transaction came between.
        :param ttl: as for :meth:`write`.
        :param keep: a value that is there keeps the time it has.
        """
        await self._repeated(lambda: self._change(key, change, ttl, keep))

    async def _change(
        self, key: str, change: Callable[[str | None], str | None], ttl: float | None, keep: bool
    ) -> None:
        async with self._writing("change") as (db, rows, undo):
            expiry = self._expiry(rows, None)
            locked = (await db.execute(rows.lock(), {**row_of(key, ABSENT), **expiry})).one()
            present = None if locked[0] == ABSENT or not locked[1] else locked[0]
            changed = change(present)
            if changed is None:
                await undo()
                if not self.savepoints and locked[0] == ABSENT:
                    await db.execute(rows.remove([row_key(key)]))
                return
            if changed == ABSENT:
                await db.execute(rows.remove([row_key(key)]))
                return
            self._expiry(rows, ttl)
            await db.execute(rows.change(row_key(key), changed, ttl, keep=keep and present is not None))

    async def keys(self) -> list[str]:
        """Return every key."""

        async def read() -> list[str]:
            async with self._transaction("list") as (db, rows):
                return list(await db.scalars(rows.keys()))

        return await self._repeated(read)

    async def keys_beginning(self, beginning: str, *, after: str | None, limit: int) -> list[str]:
        """Return the first keys that begin like this, after a key, in the order of their code points.

        Cost grows with ``limit``, and with how many keys of more than 1,024 bytes there are.
        """
        below = beginning[:-1] + chr(ord(beginning[-1]) + 1)

        async def read() -> list[str]:
            async with self._transaction("list") as (db, rows):
                whole = list(await db.scalars(rows.keys_between(beginning, below, after, limit)))
                long = list(await db.scalars(rows.long_keys(beginning, after, limit)))
                return list(islice(merge(whole, long), limit))

        return await self._repeated(read)

    def _expiry(self, rows: Rows, ttl: float | None) -> dict[str, float | None]:
        if rows.expire:
            return {"ttl": ttl}
        if ttl is not None:
            raise ConfigurationError(
                f"the table {self._name!r} has no column expires_at, so nothing in it can expire; run agent-service db "
                "upgrade for the package's own table, add the column (timestamp with time zone) to any other, and "
                "restart; or leave ttl out"
            )
        return {}

    async def _repeated(self, transaction: Callable[[], Awaitable[T]]) -> T:
        """Repeat a transaction while the server refuses it because of a concurrent one.

        With READ COMMITTED that never happens; with stricter isolation one of those that overlap gets through each
        time, and the others were rolled back whole. A transaction of the caller's only the caller can repeat.
        """
        for failures in range(_ATTEMPTS - 1):
            try:
                return await transaction()
            except TransactionConflictError:
                if self.joined is not None:
                    raise
            await asyncio.sleep(_PAUSES.pause(failures))
        return await transaction()

    @asynccontextmanager
    async def _writing(self, action: str) -> AsyncIterator[tuple[AsyncSession, Rows, Undo]]:
        """Yield a session, the statements, and what undoes them; commit, or leave that to the caller's transaction."""
        async with self._transaction(action) as (db, rows):
            if self.joined is None:
                yield db, rows, db.rollback
                await db.commit()
                return
            if not self.savepoints:
                yield db, rows, _leave_it
                return
            async with db.begin_nested() as savepoint:
                yield db, rows, savepoint.rollback

    @asynccontextmanager
    async def _transaction(self, action: str) -> AsyncIterator[tuple[AsyncSession, Rows]]:
        with database_errors(f"{action} rows of {self._name}"):
            if self.joined is not None:
                yield self.joined, self._place.found or await self._find_within(self.joined)
                return
            rows = self._place.found or await self._find_once()
            async with self._sessions() as db:
                keep_session_clean(db)
                name_session(db)
                yield db, rows

    async def _find_within(self, db: AsyncSession) -> Rows:
        rows = await self._find(db)
        # What this transaction makes may be rolled back, so another table is looked for each time.
        if self._name == OWN_TABLE and rows.expire:
            self._place.found = rows
        return rows

    async def _find_once(self) -> Rows:
        async with self._finding:
            if self._place.found is not None:
                return self._place.found
            async with self._sessions() as db:
                keep_session_clean(db)
                # Another process may make it while this one waits: what it made has to be seen then.
                await read_committed(db)
                found = await self._find(db)
                await db.commit()
            self._place.found = found
            return found

    async def _find(self, db: AsyncSession) -> Rows:
        connection = await db.connection()
        if self._name == OWN_TABLE:
            table = await connection.run_sync(find_own)
        else:
            table = await connection.run_sync(find_or_make, self._name, row_of)
        return Rows(table, connection.dialect.name)


async def _leave_it() -> None:
    """Undo nothing: there is no savepoint to go back to."""


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    listed = list(keys)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
