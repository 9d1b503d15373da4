"""A streaming response that owns what it sends."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

__all__ = ["OwnedStream"]

_PATIENCE: Final = 120.0
"""Seconds that a client may take for one chunk, which may be a message of a mebibyte."""


class OwnedStream(StreamingResponse):
    """A response whose generator is closed when the client has left, and in any case before the response is over.

    A client that reads nothing for two minutes has left as well: what the generator holds is not its to keep.

    Starlette's own response leaves it to the garbage collector, and on servers of ASGI 2.4 it notices at the next chunk
    only that a client has left.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - every server alike

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(_PATIENCE):
                await send(message)

        sending = asyncio.create_task(self.stream_response(send_in_time))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._chunks.aclose()
        if not sending.cancelled():
            with suppress(OSError):  # a client that took too long; and how a server of ASGI 2.4 says that one has left
                sending.result()
