"""Middleware that binds the shared state of each request: plain ASGI, so it works with any framework and streams."""

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from agent_service.tenants.current import shared_state_scope

__all__ = ["SharedStateMiddleware"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Owner: TypeAlias = tuple[str, str] | None
Resolver: TypeAlias = Callable[[Scope], Owner | Awaitable[Owner]]


class SharedStateMiddleware:
    """Makes the user's shared state available as ``current_shared_state`` to all code that serves a request.

    ::

        app.add_middleware(SharedStateMiddleware, resolver=tenant_and_user_of)

    It covers HTTP requests and web sockets, until the last byte is sent. Unlike middleware that reads responses, it
    touches no message and starts no task.

    :param app: the ASGI application inside.
    :param resolver: returns ``(tenant, user_id)`` for a connection's scope, or None to bind nothing; plain or async.
        An exception that it raises ends the request.
    """

    def __init__(self, app: ASGIApp, resolver: Resolver) -> None:
        self._app = app
        self._resolver = resolver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = await self._owner(scope) if scope["type"] in {"http", "websocket"} else None
        if owner is None:
            await self._app(scope, receive, send)
            return
        tenant, user_id = owner
        with shared_state_scope(tenant, user_id):
            await self._app(scope, receive, send)

    async def _owner(self, scope: Scope) -> Owner:
        owner = self._resolver(scope)
        return await owner if inspect.isawaitable(owner) else owner
