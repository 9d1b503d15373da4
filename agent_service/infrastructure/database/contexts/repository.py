"""A ready repository of contexts: over a mapped entity of the application, or over the package's table of JSON."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, ConfigurationError, DatabaseError
from agent_service.infrastructure.database.contexts.table import OWN_TABLE, KeyValueTable
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.sqlite.cancelled import keep_session_clean
from agent_service.infrastructure.database.transactions.factories import SessionFactory, require_async_sessions
from agent_service.infrastructure.database.transactions.isolation import read_committed

__all__ = ["SqlContextRepository"]

_KEY = "context_key"


class SqlContextRepository:
    """Keeps contexts by ``context_key``, each call in a transaction of its own.

    ::

        class SessionContext(Base):
            __tablename__ = "session_context"
            context_key: Mapped[str] = mapped_column(primary_key=True)
            user_name: Mapped[str | None]
            repo_name: Mapped[str | None]

        repository = SqlContextRepository(async_sessionmaker(engine), model=SessionContext)

    With a model, the fields of a context are its columns: others are refused, and those that are not given are NULL.
    Without one, contexts are JSON in a table of the package. :meth:`update` is atomic, between processes too.

    :param session_factory: gives an AsyncSession to enter, as ``async_sessionmaker`` does.
    :param model: a mapped class whose primary key is ``context_key``.
    :param table: name of the JSON table.
    :raises ConfigurationError: for a model that is no such class, or a factory of sessions that cannot be awaited, such
        as ``sessionmaker``.
    """

    def __init__(
        self, session_factory: SessionFactory, model: type[Any] | None = None, *, table: str = OWN_TABLE
    ) -> None:
        self.restricts_keys = model is not None
        self._rows: _Entities | _Documents = (
            _Documents(KeyValueTable(session_factory, table=table))
            if model is None
            else _Entities(session_factory, model)
        )

    async def get(self, context_key: str) -> dict[str, Any] | None:
        """Return the context, or None."""
        return await self._rows.get(context_key)

    async def set(self, context_key: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Store a context in place of any other, and return what is kept."""
        return await self._rows.put(context_key, dict(data), whole=True)

    async def update(self, context_key: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Set fields of a context, leave the others, and return the whole."""
        return await self._rows.put(context_key, dict(patch), whole=False)

    async def delete(self, context_key: str) -> None:
        """Remove the context, if there is one."""
        await self._rows.delete(context_key)


class _Documents:
    """Contexts as JSON."""

    def __init__(self, table: KeyValueTable) -> None:
        self._table = table

    async def get(self, key: str) -> dict[str, Any] | None:
        value = (await self._table.read((key,))).get(key)
        return None if value is None else decode(value.encode(), tagged=True)

    async def put(self, key: str, data: dict[str, Any], *, whole: bool) -> dict[str, Any]:
        kept = data

        def change(value: str | None) -> str:
            nonlocal kept
            if not whole and value is not None:
                kept = {**decode(value.encode(), tagged=True), **data}
            try:
                return encode(kept)[0].decode()
            except CacheSerializationError as exc:
                raise DatabaseError(f"could not write a context: {exc}") from exc

        await self._table.change(key, change)
        return kept

    async def delete(self, key: str) -> None:
        await self._table.remove((key,))


class _Entities:
    """Contexts as rows of a mapped class."""

    def __init__(self, sessions: SessionFactory, model: type[Any]) -> None:
        self._sessions = require_async_sessions(sessions)
        self._model = model
        try:
            mapper = inspect(model)
            key = [each.key for each in mapper.primary_key]
        except (NoInspectionAvailable, AttributeError):
            raise ConfigurationError(f"model must be a mapped class, got {model!r:.200}") from None
        self._fields = {each.key: each.columns[0] for each in mapper.column_attrs}
        if key != [getattr(self._fields.get(_KEY), "key", None)]:
            raise ConfigurationError(f"the primary key of {model.__name__} must be {_KEY}, and is {', '.join(key)}")
        self._key = self._fields.pop(_KEY)

    async def get(self, key: str) -> dict[str, Any] | None:
        async with self._transaction("read a context") as db:
            row = (await db.execute(select(*self._columns()).where(self._key == key))).mappings().first()
            return None if row is None else dict(row)

    async def put(self, key: str, data: dict[str, Any], *, whole: bool) -> dict[str, Any]:
        unknown = sorted(data.keys() - self._fields.keys())
        if unknown:
            raise DatabaseError(
                f"{self._model.__name__} has no column {', '.join(map(repr, unknown))}; it keeps "
                f"{', '.join(self._fields)}"
            )
        values = {self._fields[name].name: data.get(name) for name in (self._fields if whole else data)}
        async with self._transaction("write a context") as db:
            dialect = postgresql if db.get_bind().dialect.name == "postgresql" else sqlite
            insert: Any = dialect.insert(self._model).values({self._key.name: key, **values})
            upsert = insert.on_conflict_do_update(index_elements=[self._key], set_={self._key.name: key, **values})
            row = (await db.execute(upsert.returning(*self._columns()))).mappings().one()
            await db.commit()
            return dict(row)

    async def delete(self, key: str) -> None:
        async with self._transaction("delete a context") as db:
            entity = await db.get(self._model, key, with_for_update=True)  # two that delete it take turns
            if entity is not None:
                await db.delete(entity)
                await db.commit()

    def _columns(self) -> list[Any]:
        return [column.label(name) for name, column in self._fields.items()]

    @asynccontextmanager
    async def _transaction(self, action: str) -> AsyncIterator[AsyncSession]:
        with database_errors(action):
            async with self._sessions() as db:
                keep_session_clean(db)
                await read_committed(db)
                yield db
