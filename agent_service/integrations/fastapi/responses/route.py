"""The route class that lets :func:`cache_response` answer in place of the route."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from agent_service.integrations.fastapi.responses.running import SCOPE_KEY, STATUS_KEY, Answered, RunningRoute
from agent_service.integrations.fastapi.responses.serving import CACHE_NAME

__all__ = ["CachedRoute"]


class CachedRoute(APIRoute):
    """A route whose responses may be cached: ``APIRouter(route_class=CachedRoute)``.

    A route without :func:`cache_response` among its dependencies is served as by any other route class.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route, in which the cache may answer."""
        handler = super().get_route_handler()
        running = RunningRoute(handler, self)

        async def cached_handler(request: Request) -> Response:
            request.scope[SCOPE_KEY] = running
            try:
                response = await handler(request)
            except Answered as answered:
                return answered.response
            status = request.scope.get(STATUS_KEY)
            if status is not None:
                response.headers.append("cache-status", f"{CACHE_NAME}; {status}")
            return response

        return cached_handler
