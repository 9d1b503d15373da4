"""Running a route for the cache instead of for a client, and collecting what it sends.

The request of the load is a copy of the first caller's, as a plain GET: without what makes its answer partial or
conditional. The route runs in a task of its own, because background tasks and the end of its dependencies come after
the response, and nobody waits for them.
"""

import asyncio
from typing import Any, Final

from starlette.types import ASGIApp, Message, Scope

from agent_service.core.logging import logger

__all__ = ["Captured", "run_captured"]

_OF_ONE_CALLER: Final = frozenset(
    {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range"}
)
_running: Final = set[asyncio.Task[None]]()
"""Routes that have answered and still run their background tasks."""


class _Streams(Exception):  # noqa: N818 - never leaves this file
    """Stops a route that began to stream."""


class Captured:
    """What a route sends, as its ``send``."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.streams = False
        """Whether the body came in pieces; then none of it was kept."""
        self.in_session = False
        """Whether there was a session when it ended, which another caller does not have."""
        self.complete = asyncio.get_running_loop().create_future()

    async def send(self, message: Message) -> None:
        """Take one message of the route."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
            self.streams = bool(message.get("trailers", False))
        elif message["type"] == "http.response.body":
            self.streams = self.streams or bool(message.get("more_body", False))
            if not self.complete.done():
                self.body = b"" if self.streams else bytes(message.get("body", b""))
                self.complete.set_result(None)
            if self.streams:
                raise _Streams


async def run_captured(app: ASGIApp, scope: Scope, extra: dict[str, Any]) -> Captured:
    """Return what a route sends for a GET.

    :param extra: put into the scope of the load.
    :raises Exception: what the route raises before it has answered.
    """
    captured = Captured()
    headers = [pair for pair in scope["headers"] if pair[0] not in _OF_ONE_CALLER]
    its_scope = {**scope, **extra, "method": "GET", "headers": headers, "extensions": {}}
    task = asyncio.create_task(_run(app, its_scope, captured))
    try:
        await asyncio.wait({task, captured.complete}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    finally:
        if not task.done():
            _running.add(task)
            task.add_done_callback(_running.discard)
    if captured.complete.done():
        captured.in_session = bool(its_scope.get("session"))
        return captured
    captured.complete.cancel()
    await task
    raise RuntimeError("the route returned without a response")


async def _run(app: ASGIApp, scope: Scope, captured: Captured) -> None:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()  # the client of a load never leaves
        sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    try:
        await app(scope, receive, captured.send)
    except Exception:
        if not captured.complete.done():
            raise
        if not captured.streams:
            logger.exception("%s failed after it had answered", scope["path"])
