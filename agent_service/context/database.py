"""Context in a table of a relational database."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from agent_service.context.base import Change, DocumentStore
from agent_service.context.per_loop import PerLoop
from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.keyvalue import (
    OWN_TABLE,
    Engine,
    KeyValueTable,
    SessionFactory,
    engine_sessions,
)

__all__ = ["DatabaseContextStore"]


class DatabaseContextStore(DocumentStore):
    """Keeps contexts in SQLite or PostgreSQL, as JSON in the columns ``key`` and ``value``.

    Shared by every process that opens the database. Each call is one transaction; :meth:`update` locks the key's row
    meanwhile. Nothing is connected before the first use. Give one of the four places, or none for a file
    ``context.db``; from a path or URL the store opens connections of its own, on every event loop that uses it, and
    :meth:`aclose` closes them. An engine or session factory is the caller's, and must be used on his loop.

    :param db_path: a SQLite file, made when missing.
    :param url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user:password@host/name``.
    :param engine: an AsyncEngine.
    :param session_factory: gives an AsyncSession to enter, as ``async_sessionmaker`` does.
    :param table: ``context_store`` comes by migration (``agent-service db upgrade``; a SQLite file migrates itself);
        any other is created when first used.
    :raises ConfigurationError: for more than one place, or a URL or table name that cannot be used.
    """

    def __init__(
        self,
        db_path: str | Path | None = None,
        *,
        url: str | None = None,
        engine: Engine | None = None,
        session_factory: SessionFactory | None = None,
        table: str = OWN_TABLE,
    ) -> None:
        super().__init__()
        places = {"db_path": db_path, "url": url, "engine": engine, "session_factory": session_factory}
        given = [name for name, place in places.items() if place is not None]
        if len(given) > 1:
            raise ConfigurationError(f"{' and '.join(given)} were given; give one of {', '.join(places)}")
        if "?" in str(db_path):
            raise ConfigurationError(
                f"db_path holds a question mark, which SQLite's URLs cannot: {str(db_path)!r:.200}"
            )
        self._managers: PerLoop[tuple[DatabaseManager, KeyValueTable]] | None = None
        if engine is not None:
            session_factory = engine_sessions(engine)
        if session_factory is not None:
            self._given = KeyValueTable(session_factory, table=table)
            return
        target = url if url is not None else f"sqlite+aiosqlite:///{db_path or 'context.db'}"

        def connect() -> tuple[DatabaseManager, KeyValueTable]:
            manager = DatabaseManager(target)
            return manager, KeyValueTable(manager.session, table=table)

        connect()  # so that a place that cannot be used is refused now; nothing is connected
        self._managers = PerLoop(connect, lambda made: made[0].close())

    @property
    def _table(self) -> KeyValueTable:
        return self._given if self._managers is None else self._managers.get()[1]

    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        return {text: value.encode() for text, value in (await self._table.read(texts)).items()}

    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:  # noqa: ARG002 - it is infinity
        await self._table.write({text: data.decode() for text, data in documents.items()})

    async def _remove(self, texts: Collection[str]) -> int:
        return await self._table.remove(texts)

    async def _change(self, text: str, change: Change, ttl: float | None) -> None:  # noqa: ARG002 - infinity or None
        def change_value(value: str | None) -> str | None:
            changed = change(None if value is None else value.encode())
            return None if changed is None else changed.decode()

        await self._table.change(text, change_value)

    async def _texts(self) -> Iterable[str]:
        return await self._table.keys()

    async def aclose(self) -> None:
        if self._managers is not None:
            await self._managers.aclose()
