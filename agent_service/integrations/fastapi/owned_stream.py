"""A streaming response that owns what it sends."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["OwnedStream"]


class OwnedStream(StreamingResponse):
    """A response whose generator is closed when the client has left, and in any case before the response is over.

    Starlette's own response leaves it to the garbage collector, and on servers of ASGI 2.4 it notices at the next chunk
    only that a client has left.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - every server alike
        sending = asyncio.create_task(self.stream_response(send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._chunks.aclose()
        if not sending.cancelled():
            with suppress(OSError):  # a server of ASGI 2.4 says so that the client has left
                sending.result()
