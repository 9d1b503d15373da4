"""A route whose responses are cached, as its two passes see it.

Every request begins with a pass through the route as FastAPI runs it. The dependencies before the cache run, and then
the cache ends the pass with an answer (:class:`Answered`), or lets it go on. A load is a second pass, of its own, in
which the cache does nothing.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi.exceptions import HTTPException
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute, request_response
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

__all__ = ["IN_LOAD", "SCOPE_KEY", "STATUS_KEY", "Answered", "RunningRoute"]

SCOPE_KEY: Final = "agent_service.responses"
"""Where the scope of a request holds the :class:`RunningRoute`, or :data:`IN_LOAD`."""
STATUS_KEY: Final = "agent_service.cache_status"
"""Where it holds what Cache-Status says of a response that the cache did not answer with."""
IN_LOAD: Final = object()


class Answered(HTTPException):
    """Ends the pass, because the cache has the response. An HTTPException, as FastAPI's traces call others errors."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code, "")
        self.response = response


class RunningRoute:
    """The whole route as an ASGI application, for loads, and its declaration."""

    def __init__(self, handler: Callable[[Request], Any], route: APIRoute) -> None:
        self.app: ASGIApp = AsyncExitStackMiddleware(request_response(handler))
        self.endpoint = route.endpoint
        self.dependant = route.dependant
        methods = route.methods or set()
        self.methods = frozenset(methods & {"GET", "HEAD"}) if "GET" in methods else frozenset[str]()
        """Those that the cache may answer: a load is a GET."""
        self.streams = False
        """Whether it has streamed a response, so that it is not asked for one again."""
        self.known: dict[object, Any] = {}
        """What the caches in front of it have found out about it."""
