"""The messages of a session as server-sent events: numbered, so that a client resumes where it was.

``fastapi.sse`` writes the events. Its responses do not serve here: their heartbeat is fixed, they break off when the
subscription fails, and on servers of ASGI 2.4 a client that has left is noticed at the next heartbeat only.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Final

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from agent_service.core.logging import logger
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.integrations.fastapi.models import MessageOut
from agent_service.integrations.fastapi.owned_stream import OwnedStream
from agent_service.integrations.fastapi.problems import problem_of

__all__ = ["MessageEvents"]

_RETRY: Final = 3_000
"""Milliseconds after which a client that lost its connection connects again."""
_ESCAPED: Final = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"})
"""Ends of lines for many clients that are written in Python, and not for the standard; within JSON, only in texts."""


class MessageEvents(OwnedStream):
    """A response that sends each message of a subscription as an event, as soon as it is there.

    The id of an event is the message's ``seq``, its data the message as the REST API shows it. An error ends the stream
    with an event of the type ``problem``, whose data is a problem document. When the client leaves, the subscription is
    closed at once, and it is closed in any case.

    :param messages: a subscription; it belongs to the response from now on.
    :param heartbeat: seconds of silence after which a comment is sent, so that proxies keep the connection open.
    """

    def __init__(self, messages: AsyncGenerator[SessionMessage, None], *, heartbeat: float) -> None:
        # Proxies of the nginx family would collect events into large pieces.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(messages, heartbeat), media_type="text/event-stream", headers=headers)


async def _events(messages: AsyncGenerator[SessionMessage, None], heartbeat: float) -> AsyncGenerator[bytes, None]:
    yield format_sse_event(retry=_RETRY)
    async with aclosing(messages), aclosing(_or_none(messages, heartbeat)) as coming:
        try:
            async for message in coming:
                yield KEEPALIVE_COMMENT if message is None else _event(message)
        except Exception as exc:  # noqa: BLE001 - the response has begun, so the client is told within it
            yield _problem(exc)


async def _or_none(
    messages: AsyncGenerator[SessionMessage, None], seconds: float
) -> AsyncGenerator[SessionMessage | None, None]:
    """Return what the generator returns, and None whenever it returns nothing for so long."""
    coming: asyncio.Task[SessionMessage | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(messages))
            done, _ = await asyncio.wait({coming}, timeout=seconds)
            if not done:
                yield None
                continue
            message, coming = coming.result(), None
            if message is None:
                return
            yield message
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})


async def _next(messages: AsyncGenerator[SessionMessage, None]) -> SessionMessage | None:
    return await anext(messages, None)


def _event(message: SessionMessage) -> bytes:
    data = MessageOut.of(message).model_dump_json().translate(_ESCAPED)
    return format_sse_event(id=str(message.seq), data_str=data)


def _problem(exc: Exception) -> bytes:
    problem = problem_of(exc)
    if problem["status"] == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a stream of events failed", exc_info=exc)
    return format_sse_event(event="problem", data_str=json.dumps(problem))
