"""State in a table of a relational database."""

from typing import TYPE_CHECKING, Final, Unpack

from agent_service.context.database import DatabaseContextStore, PoolOptions
from agent_service.core.errors import ConfigurationError
from agent_service.state.interface import ContextT
from agent_service.state.over_context import ContextStateStore

if TYPE_CHECKING:
    from agent_service.infrastructure.database.contexts.table import Engine as AsyncEngine
    from agent_service.infrastructure.database.transactions.factories import SessionFactory

__all__ = ["SQLStateStore"]

_TABLE: Final = "agent_state"


class SQLStateStore(ContextStateStore[ContextT]):
    """Keeps contexts in SQLite or PostgreSQL, shared by every process that opens the database.

    With a URL the store opens its own connections on every event loop that uses it, and :meth:`aclose` closes them; an
    engine or session factory stays the caller's. A save locks the user's row.

    :param url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user:password@host/name``; give it, or
        ``engine``, or ``session_factory``.
    :param table: created when first used; ids are in the column ``key``, JSON in ``value``.
    :param model: the class of the contexts; None: CoachContext.
    :param options: of the connections of a URL, as those of
        :class:`~agent_service.context.database.DatabaseContextStore`.
    :raises ConfigurationError: if more than one place is given, or a URL, table name or option cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        engine: "AsyncEngine | None" = None,
        session_factory: "SessionFactory | None" = None,
        table: str = _TABLE,
        model: type[ContextT] | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        if url is None and engine is None and session_factory is None:
            raise ConfigurationError("SQLStateStore needs a place: give url, engine or session_factory")
        store = DatabaseContextStore(url=url, engine=engine, session_factory=session_factory, table=table, **options)
        super().__init__(store, model=model)

    async def aclose(self) -> None:
        await self._store.aclose()
