"""The sessions of a user, and what was said in them."""

from uuid import UUID

from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.results import CursorPage, SearchHit
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["list_sessions", "search_items"]


async def list_sessions(
    user_id: UUID | str,
    *,
    tenant_id: str = "",
    limit: int = 50,
    cursor: str | None = None,
    database: DatabaseManager | None = None,
) -> CursorPage[Session]:
    """Return the next sessions of a user, the latest activity first; every page costs the same.

    ``external_id`` of each is its ``session_id``.

    :param limit: 1 to 1,000.
    :param cursor: ``next_cursor`` of the page before; None for the first page.
    :param database: where they are stored; None is the database of the settings.
    :raises SessionValueError: an argument cannot be used; it is named.
    """
    async with (get_database() if database is None else database).session() as db:
        return await SessionRepository(db, tenant_id).get_user_sessions_page(user_id, limit=limit, cursor=cursor)


async def search_items(
    user_id: UUID | str,
    term: str,
    *,
    tenant_id: str = "",
    limit: int = 20,
    database: DatabaseManager | None = None,
) -> list[SearchHit]:
    """Return items of all sessions of a user that contain a term, best first: what was said, called and returned.

    :param limit: 1 to 1,000.
    :param database: where they are stored; None is the database of the settings.
    :raises SessionValueError: an argument cannot be used; it is named.
    """
    async with (get_database() if database is None else database).session() as db:
        return await SessionRepository(db, tenant_id).search_messages(user_id, term, limit)
