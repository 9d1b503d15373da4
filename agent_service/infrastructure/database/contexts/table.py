"""A table of text under text keys: what stores keep their documents in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from agent_service.core.backoff import Backoff
from agent_service.core.errors import ConfigurationError, TransactionConflictError
from agent_service.infrastructure.database.contexts.place import find_or_make
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.context import ContextEntry
from agent_service.infrastructure.database.naming.names import MARK, RELATIONS
from agent_service.infrastructure.database.sqlite.cancelled import keep_session_clean
from agent_service.infrastructure.database.transactions.factories import (
    SessionFactory,
    require_async_engine,
    require_async_sessions,
)
from agent_service.infrastructure.database.transactions.isolation import read_committed
from agent_service.infrastructure.database.transactions.own_sessions import name_session

__all__ = ["OWN_TABLE", "Engine", "KeyValueTable", "engine_sessions", "row_of"]

T = TypeVar("T")

Engine: TypeAlias = AsyncEngine
"""What a caller's own engine is."""

OWN_TABLE: Final = "context_store"
"""The table that the package's migrations make; whatever schema and prefix it has."""

_LONGEST_KEY: Final = 1024
"""Longest key, in bytes, that is indexed as it is; PostgreSQL's limit for an index entry is about 2,700."""
_DIGEST_MARK: Final = "~#"
_CHUNK: Final = 1000
_ATTEMPTS: Final = 100
_PAUSES: Final = Backoff(0.005, 0.05)
_ABSENT: Final = ""
"""What a row holds while it is locked before its first value; it is never committed, and no document is empty text."""


def engine_sessions(engine: AsyncEngine) -> SessionFactory:
    """Return sessions of an engine."""
    require_async_engine(engine)
    return async_sessionmaker(engine, expire_on_commit=False)


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
        self._made = table == OWN_TABLE
        self._table: Any = ContextEntry.__table__
        self._making = asyncio.Lock()

    async def read(self, keys: Collection[str]) -> dict[str, str]:
        """Return the values under those of the keys that are there."""
        return await self._repeated(lambda: self._read(keys))

    async def _read(self, keys: Collection[str]) -> dict[str, str]:
        rows = {_row_key(key): key for key in keys}
        found: dict[str, str] = {}
        async with self._transaction("read") as db:
            columns = self._table.c
            for chunk in _chunks(rows):
                result = await db.execute(select(columns.key, columns.value).where(columns.key.in_(chunk)))
                found.update({rows[row]: value for row, value in result})
        return found

    async def write(self, values: Mapping[str, str]) -> None:
        """Store values, all of them or none."""
        await self._repeated(lambda: self._write(values))

    async def _write(self, values: Mapping[str, str]) -> None:
        # Always in this order, so that two transactions never wait in a circle.
        rows = [row_of(key, value) for key, value in sorted(values.items(), key=lambda item: _row_key(item[0]))]
        async with self._transaction("write") as db:
            insert = self._insert(db)
            upsert = insert.on_conflict_do_update(
                index_elements=[self._table.c.key], set_={"value": insert.excluded.value}
            )
            await db.execute(upsert, rows)
            await db.commit()

    async def remove(self, keys: Collection[str]) -> int:
        """Remove rows; return how many there were."""
        return await self._repeated(lambda: self._remove(keys))

    async def _remove(self, keys: Collection[str]) -> int:
        removed = 0
        async with self._transaction("delete") as db:
            column = self._table.c.key
            for chunk in _chunks(sorted(map(_row_key, keys))):
                locked = select(column).where(column.in_(chunk)).order_by(column).with_for_update()
                result: Any = await db.execute(delete(self._table).where(column.in_(locked.scalar_subquery())))
                removed += result.rowcount
            await db.commit()
        return removed

    async def change(self, key: str, change: Callable[[str | None], str | None]) -> None:
        """Apply ``change`` to a value while the row is locked.

        :param change: takes the value (None: there is none) and returns what shall be (None: leave it; "": none). It
            may be called again, where another transaction came between.
        """
        await self._repeated(lambda: self._change(key, change))

    async def _change(self, key: str, change: Callable[[str | None], str | None]) -> None:
        row = row_of(key, _ABSENT)
        async with self._transaction("change") as db:
            columns = self._table.c
            # Locks the row, making it where there is none; what was there stays and is given.
            insert = self._insert(db)
            lock = insert.on_conflict_do_update(index_elements=[columns.key], set_={"key": insert.excluded.key})
            present = (await db.execute(lock.returning(columns.value), row)).scalar_one()
            changed = change(None if present == _ABSENT else present)
            if changed is None:
                await db.rollback()
                return
            place = columns.key == row["key"]
            await db.execute(
                update(self._table).where(place).values(value=changed) if changed else delete(self._table).where(place)
            )
            await db.commit()

    async def keys(self) -> list[str]:
        """Return every key."""
        return await self._repeated(self._keys)

    async def _keys(self) -> list[str]:
        async with self._transaction("list") as db:
            columns = self._table.c
            return list(await db.scalars(select(func.coalesce(columns.long_key, columns.key))))

    async def _repeated(self, transaction: Callable[[], Awaitable[T]]) -> T:
        """Repeat a transaction while the server refuses it because of a concurrent one.

        With READ COMMITTED that never happens; with stricter isolation one of those that overlap gets through each
        time, and the others were rolled back whole.
        """
        for failures in range(_ATTEMPTS - 1):
            try:
                return await transaction()
            except TransactionConflictError:
                pass
            await asyncio.sleep(_PAUSES.pause(failures))
        return await transaction()

    def _insert(self, db: AsyncSession) -> Any:
        dialect = postgresql if db.get_bind().dialect.name == "postgresql" else sqlite
        return dialect.insert(self._table).values(
            key=bindparam("key"), value=bindparam("value"), long_key=bindparam("long_key")
        )

    @asynccontextmanager
    async def _transaction(self, action: str) -> AsyncIterator[AsyncSession]:
        with database_errors(f"{action} rows of {self._name}"):
            if not self._made:
                await self._make()
            async with self._sessions() as db:
                keep_session_clean(db)
                name_session(db)
                yield db

    async def _make(self) -> None:
        async with self._making:
            if self._made:
                return
            async with self._sessions() as db:
                keep_session_clean(db)
                # Another process may make it while this one waits: what it made has to be seen then.
                await read_committed(db)
                connection = await db.connection()
                self._table = await connection.run_sync(find_or_make, self._name, row_of)
                await db.commit()
            self._made = True


def row_of(key: str, value: str) -> dict[str, str | None]:
    """Return the columns of a row."""
    row_key = _row_key(key)
    return {"key": row_key, "value": value, "long_key": None if row_key == key else key}


def _row_key(key: str) -> str:
    """Return the key, or a 256-bit digest of a long one; no encoded key begins like a digest."""
    if len(key) * 4 <= _LONGEST_KEY:
        return key
    data = key.encode()
    return key if len(data) <= _LONGEST_KEY else _DIGEST_MARK + blake2b(data, digest_size=32).hexdigest()


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    listed = list(keys)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
