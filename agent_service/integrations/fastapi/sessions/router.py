"""The whole REST API over sessions, as one router."""

from typing import Final

from fastapi import APIRouter, Depends, Response

from agent_service.core.errors import ConfigurationError
from agent_service.integrations.fastapi.sessions.access import Access, Authorize
from agent_service.integrations.fastapi.sessions.body_limit import routes_limited_to
from agent_service.integrations.fastapi.sessions.documented import errors
from agent_service.integrations.fastapi.sessions.documents import add_documents
from agent_service.integrations.fastapi.sessions.erasing import add_erasure
from agent_service.integrations.fastapi.sessions.lifecycle import add_lifecycle
from agent_service.integrations.fastapi.sessions.listing import add_lists
from agent_service.integrations.fastapi.sessions.messages import add_messages
from agent_service.integrations.fastapi.sessions.streaming import add_streams

__all__ = ["sessions_router"]

_MEBIBYTE: Final = 1 << 20
_HOUR: Final = 3_600


def sessions_router(*, authorize: Authorize, max_body_size: int = _MEBIBYTE, heartbeat: float = 15.0) -> APIRouter:
    """Return a REST API over the sessions of the service, below ``/sessions``.

    ::

        async def authorize(scopes: SecurityScopes, token: Annotated[str, Depends(oauth2)]) -> Caller:
            claims = decode(token)  # raises HTTPException(401)
            return Caller(user_id=claims["sub"], tenant_id=claims["tenant"])

        app.include_router(sessions_router(authorize=authorize))

    Callers see their own sessions only, and those that their :class:`Caller` permits. Any other session is one that
    does not exist.

    :param authorize: a FastAPI dependency. It returns the :class:`Caller`, or raises an HTTPException: 401 for a caller
        it does not know, 403 for an operation that this caller may not do. The operation is its security scope, an
        :class:`Operation`.
    :param max_body_size: most bytes of a request's body; a larger one is refused with 413.
    :param heartbeat: seconds of silence after which a stream sends a comment.
    :raises ConfigurationError: an argument cannot be used.
    """
    if isinstance(max_body_size, bool) or not isinstance(max_body_size, int) or max_body_size < 1:
        raise ConfigurationError(f"max_body_size must be a number of bytes, at least 1, got {max_body_size!r:.80}")
    if isinstance(heartbeat, bool) or not isinstance(heartbeat, int | float) or not 0 < heartbeat <= _HOUR:
        raise ConfigurationError(f"heartbeat must be seconds above 0, at most an hour, got {heartbeat!r:.80}")
    access = Access(authorize)
    router = APIRouter(
        prefix="/sessions",
        tags=["sessions"],
        dependencies=[Depends(_private)],
        responses=errors(401, 403, 413, 422, 503),
        generate_unique_id_function=lambda route: route.name,
        route_class=routes_limited_to(max_body_size),
    )
    # Fixed paths come before those that begin with an id.
    add_lists(router, access)
    add_streams(router, access, heartbeat=heartbeat)
    add_erasure(router, access)
    add_lifecycle(router, access)
    add_messages(router, access)
    add_documents(router, access)
    return router


async def _private(response: Response) -> None:
    """Let no cache but the caller's own keep an answer, and let that one ask again before it uses it."""
    response.headers["Cache-Control"] = "private, no-cache"
