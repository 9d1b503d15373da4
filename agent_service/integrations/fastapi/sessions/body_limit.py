"""A limit on the bodies of requests, refused with a problem document.

FastAPI's own ``max_body_size`` answers in plain text wherever Content-Length says too much.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

__all__ = ["routes_limited_to"]


def routes_limited_to(most: int) -> type[APIRoute]:
    """Return the class of routes that read at most so many bytes of a request's body."""

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def limited(request: Request) -> Response:
                return await handle(Request(request.scope, _Limited(request, most).receive))

            return limited

    return LimitedRoute


class _Limited:
    """What a request receives, as long as its body is not too large."""

    def __init__(self, request: Request, most: int) -> None:
        self._request = request
        self._most = most
        self._read = 0

    async def receive(self) -> Message:
        """Return the next message of the server.

        :raises HTTPException: the body is too large, or is going to be.
        """
        announced = self._request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most:
            raise self._too_large()
        message = await self._request.receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._most:
                raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have at most {self._most} bytes; send less at once"
        )
