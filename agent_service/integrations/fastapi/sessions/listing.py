"""Routes over many sessions: lists, searches and sums."""

from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories.base import MAX_ROWS
from agent_service.infrastructure.database.repositories.results import CursorPage, PaginatedResult
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.models import (
    NumberedSessionPage,
    SearchHitOut,
    SessionOut,
    SessionPage,
    StatsGroupOut,
    StatsOut,
)
from agent_service.integrations.fastapi.sessions.access import Access, Caller, Operation

__all__ = ["add_lists"]

_Limit: TypeAlias = Annotated[int, Query(ge=1, le=MAX_ROWS, description="Most items to return.")]
_Term: TypeAlias = Annotated[str, Query(max_length=1_000, description="Looked for as it stands, in any case.")]
_Agent: TypeAlias = Annotated[str | None, Query(description="Only sessions with this agent.")]
_Since: TypeAlias = Annotated[AwareDatetime | None, Query(description="Only sessions created then or later.")]
_Until: TypeAlias = Annotated[AwareDatetime | None, Query(description="Only sessions created before.")]


def add_lists(router: APIRouter, access: Access) -> None:
    """Add the routes over many sessions."""

    @router.get("")
    async def list_sessions(
        *,
        caller: Annotated[Caller, access.caller(Operation.LIST)],
        user_id: Annotated[UUID | str, access.user(Operation.LIST)],
        sessions: Sessions,
        limit: _Limit = 50,
        cursor: Annotated[str | None, Query(description="next_cursor of the page before.")] = None,
    ) -> SessionPage:
        """Return a user's sessions page by page, the latest activity first. Every page costs the same."""
        page = await sessions.get_user_sessions_page(user_id, limit=limit, cursor=cursor)
        return SessionPage.of(CursorPage(_visible(caller, page.items), page.next_cursor))

    @router.get("/pages")
    async def list_numbered_sessions(
        *,
        caller: Annotated[Caller, access.caller(Operation.LIST)],
        user_id: Annotated[UUID | str, access.user(Operation.LIST)],
        sessions: Sessions,
        page: Annotated[int, Query(ge=1, description="1 is the first.")] = 1,
        page_size: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 20,
        status: Annotated[SessionStatus | None, Query(description="Only sessions with this status.")] = None,
        agent_id: _Agent = None,
    ) -> NumberedSessionPage:
        """Return one page of a user's sessions with the total. Deep pages cost more than those of a cursor."""
        found = await sessions.get_paginated_user_sessions(user_id, page, page_size, status=status, agent_id=agent_id)
        shown = _visible(caller, found.items)
        return NumberedSessionPage.of(PaginatedResult(shown, found.total, found.page, found.page_size))

    @router.get("/search")
    async def search_sessions(
        *,
        q: _Term,
        caller: Annotated[Caller, access.caller(Operation.SEARCH)],
        user_id: Annotated[UUID | str, access.user(Operation.SEARCH)],
        sessions: Sessions,
        limit: _Limit = 20,
        in_content: Annotated[bool, Query(description="False looks at titles only.")] = True,
    ) -> list[SessionOut]:
        """Return a user's sessions whose title or messages contain a text, the latest activity first."""
        found = await sessions.search_sessions(user_id, q, limit, in_content=in_content)
        return [SessionOut.of(each) for each in _visible(caller, found)]

    @router.get("/search/messages")
    async def search_messages(
        *,
        q: _Term,
        caller: Annotated[Caller, access.caller(Operation.SEARCH)],
        user_id: Annotated[UUID | str, access.user(Operation.SEARCH)],
        sessions: Sessions,
        limit: _Limit = 20,
    ) -> list[SearchHitOut]:
        """Return a user's messages that contain a text, the best first."""
        hits = await sessions.search_messages(user_id, q, limit)
        return [SearchHitOut.of(each) for each in hits if caller.may(Operation.READ, each.session)]

    @router.get("/stats")
    async def get_stats(
        *,
        user_id: Annotated[UUID | str, access.user(Operation.STATS)],
        sessions: Sessions,
        agent_id: _Agent = None,
        since: _Since = None,
        until: _Until = None,
    ) -> StatsOut:
        """Return the sums over a user's sessions."""
        found = await sessions.get_session_stats(user_id, agent_id=agent_id, since=since, until=until)
        return StatsOut.of(found)

    @router.get("/stats/{group_by}")
    async def get_grouped_stats(
        *,
        group_by: Literal["agent", "day"],
        user_id: Annotated[UUID | str, access.user(Operation.STATS)],
        sessions: Sessions,
        agent_id: _Agent = None,
        since: _Since = None,
        until: _Until = None,
    ) -> list[StatsGroupOut]:
        """Return the sums over a user's sessions by agent, or by the day of creation in UTC."""
        stats: Any = sessions.get_session_stats
        found = await stats(user_id, agent_id=agent_id, since=since, until=until, group_by=group_by)
        return [StatsGroupOut(key=key, stats=StatsOut.of(each)) for key, each in found.items()]


def _visible(caller: Caller, sessions: Any) -> list[Session]:
    return [each for each in sessions if caller.may(Operation.READ, each)]
