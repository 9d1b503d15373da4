"""Context in a table of a relational database."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from agent_service.context.table import JoinedContexts, TableContexts
from agent_service.core.errors import ConfigurationError
from agent_service.core.loop_registry import PerLoop
from agent_service.core.settings import get_settings
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.database.connection import open_database
from agent_service.infrastructure.database.contexts.table import (
    OWN_TABLE,
    Engine,
    KeyValueTable,
    OpenSession,
    engine_sessions,
)
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.transactions.factories import SessionFactory

__all__ = ["DatabaseContextStore", "PoolOptions"]


class PoolOptions(TypedDict, total=False):
    """Of the connections that a store opens itself, for each event loop that uses it."""

    pool_size: int
    """Connections kept open."""
    max_overflow: int
    """Connections beyond those under load."""
    pool_timeout: float
    """Seconds to wait for a free connection."""
    pool_recycle: int
    """Seconds after which a connection is replaced; -1: never."""
    statement_timeout: float
    """Seconds a PostgreSQL statement may take, waiting for locks included."""
    isolation_level: str
    """Of PostgreSQL's transactions: READ COMMITTED, REPEATABLE READ or SERIALIZABLE; left out: the server's own. Where
    it makes the server refuse one of two that overlap, that one is repeated."""


_LEAST: Final[Mapping[str, tuple[type, float]]] = {
    "pool_size": (int, 1),
    "max_overflow": (int, 0),
    "pool_recycle": (int, -1),
    "pool_timeout": (float, 0.001),
    "statement_timeout": (float, 0.001),
}


class DatabaseContextStore(TableContexts):
    """Keeps contexts in SQLite or PostgreSQL, as JSON in the columns ``key`` and ``value``.

    Shared by every process that opens the database. Each call is one transaction; :meth:`update` locks the key's row
    meanwhile. Nothing is connected before the first use. Pass one of the four places, or none for a file
    ``context.db``; from a path or URL the store opens connections of its own, on every event loop that uses it, and
    :meth:`aclose` closes them. An engine or session factory is the caller's, and must be used on the caller's loop.

    :param db_path: a SQLite file, made when missing.
    :param url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user:password@host/name``.
    :param engine: an AsyncEngine.
    :param session_factory: returns an AsyncSession to enter, as ``async_sessionmaker`` does.
    :param table: ``context_store`` comes by migration (``agent-service db upgrade``; a SQLite file migrates itself);
        any other is created when first used. A table of ``key`` and ``value`` alone, as the documented example makes
        it, is taken over with what it holds.
    :param ttl: the default time to live. Expired entries are hidden at once, by the database's clock; the scheduled
        cleanup removes them from the package's own table, and :meth:`remove_expired` from any.
    :param options: of the connections of a path or URL (:class:`PoolOptions`); what is left out is as DB_POOL_SIZE,
        DB_MAX_OVERFLOW, DB_POOL_TIMEOUT, DB_POOL_RECYCLE and DB_STATEMENT_TIMEOUT say.
    :raises ConfigurationError: for more than one place, or a URL, table name or option that cannot be used.
    """

    def __init__(
        self,
        db_path: str | Path | None = None,
        *,
        url: str | None = None,
        engine: Engine | None = None,
        session_factory: SessionFactory | None = None,
        table: str = OWN_TABLE,
        ttl: TTL = NEVER,
        **options: Unpack[PoolOptions],
    ) -> None:
        super().__init__(ttl=ttl)
        places = {"db_path": db_path, "url": url, "engine": engine, "session_factory": session_factory}
        given = [name for name, place in places.items() if place is not None]
        if len(given) > 1:
            raise ConfigurationError(f"{' and '.join(given)} were given; give one of {', '.join(places)}")
        if db_path is not None and not isinstance(db_path, str | Path):
            raise ConfigurationError(f"db_path must be a path, got {type(db_path).__name__} {db_path!r:.80}")
        if "?" in str(db_path):
            raise ConfigurationError(
                f"db_path holds a question mark, which SQLite's URLs cannot: {str(db_path)!r:.200}"
            )
        self._managers: PerLoop[tuple[DatabaseManager, KeyValueTable]] | None = None
        if engine is not None:
            session_factory = engine_sessions(engine)
        _check_options(options)
        if session_factory is not None and options:
            raise ConfigurationError(
                f"{', '.join(options)} cannot be given with {given[0]}, which has connections of its own; leave it out"
            )
        if session_factory is not None:
            self._given = KeyValueTable(session_factory, table=table)
            self.place = ("database", id(session_factory if engine is None else engine), table)
            return
        target = url if url is not None else f"sqlite+aiosqlite:///{db_path or 'context.db'}"

        self.place = ("database", Path(db_path or "context.db").resolve() if url is None else url, table)
        settings = get_settings()

        def connect() -> tuple[DatabaseManager, KeyValueTable]:
            manager = open_database(settings, target, row_security=False, **options)
            return manager, KeyValueTable(manager.session, table=table)

        connect()  # so that a place that cannot be used is refused now; nothing is connected
        self._managers = PerLoop(connect, lambda made: made[0].close())

    @property
    def _table(self) -> KeyValueTable:
        return self._given if self._managers is None else self._managers.get()[1]

    def within(self, db: OpenSession, *, savepoints: bool = True) -> TableContexts:
        """Return this store as seen and changed in a session's transaction, which its owner commits or rolls back.

        ::

            async with get_session() as db:
                await SessionRepository(db).add_message_to_session(session_id, message)
                await store.within(db).update(("state", user_id), {"step": 4})

        Each call happens as a whole or not at all, and an error leaves the transaction usable. A changed key stays
        locked until the transaction ends, so change several in the order of their keys. The store is of no use
        after it.

        :param db: an open AsyncSession on the database that holds the store's table.
        :param savepoints: False saves two round trips a change; after an error, roll the transaction back.
        :raises SessionValueError: ``db`` is a session that cannot be used.
        """
        return JoinedContexts(
            self._table.within(db, savepoints=savepoints),
            ttl=NEVER if self._default_ttl == math.inf else self._default_ttl,
        )

    async def aclose(self) -> None:
        if self._managers is not None:
            await self._managers.aclose()


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what is no option of a pool, or out of its range; the manager looks at the level of isolation."""
    for name, value in options.items():
        if name not in PoolOptions.__annotations__:
            raise ConfigurationError(f"{name} is no option; there are {', '.join(PoolOptions.__annotations__)}")
        if name not in _LEAST:
            continue
        kind, least = _LEAST[name]
        wanted = int if kind is int else int | float
        if isinstance(value, bool) or not isinstance(value, wanted) or not least <= value < math.inf:
            raise ConfigurationError(f"{name} must be a number of at least {least:g}, got {value!r:.80}")
