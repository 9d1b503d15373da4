"""The route that erases a user."""

from typing import Annotated

from fastapi import APIRouter, Query

from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.models import ErasedOut
from agent_service.integrations.fastapi.sessions.access import Access, Caller, Operation, named

__all__ = ["add_erasure"]


def add_erasure(router: APIRouter, access: Access) -> None:
    """Add the route that erases a user."""

    @router.delete("")
    async def erase_user(
        *,
        user_id: Annotated[str, Query(description="Whose sessions; to be named even if it is the caller.")],
        caller: Annotated[Caller, access.caller(Operation.ERASE)],
        sessions: Sessions,
    ) -> ErasedOut:
        """Remove everything of a user for good: all sessions, hidden ones too, with messages and contexts."""
        return ErasedOut(sessions=await sessions.erase_user(named(caller, user_id)))
