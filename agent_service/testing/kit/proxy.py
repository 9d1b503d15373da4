"""A proxy on a unix socket, in a thread of its own, for what a network does to Redis: cut, refuse, delay."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

__all__ = ["RedisProxy"]

_PIECE: Final = 65_536


class RedisProxy:
    """Forwards connections to a server's socket until told otherwise.

    :param path: the socket that it listens on.
    :param server: the socket of the server.
    """

    def __init__(self, path: str, server: str) -> None:
        self.path = path
        self._to = server
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agent-service-testing", daemon=True)
        self._thread.start()
        self.listen()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._writers)

    def listen(self) -> None:
        """Take connections."""
        self._run(self._listen())

    def refuse(self) -> None:
        """Cut the connections and refuse new ones, as a machine without a server does."""
        self._run(self._refuse())

    def delay(self, seconds: float) -> None:
        """Have each piece of a reply come later."""
        self._delay = seconds

    def close(self) -> None:
        """End the proxy and its thread."""
        self._run(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        if self._listening is None:
            self._listening = await asyncio.start_unix_server(self._accept, self.path)

    async def _refuse(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            with suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - one system call
        for each in tuple(self._writers):
            each.transport.abort()
        while self._serving:
            await asyncio.wait(self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        try:
            with suppress(OSError):
                from_server, to_server = await asyncio.open_unix_connection(self._to)
                answers = asyncio.create_task(self._pump(from_server, writer, delayed=True))
                try:
                    await self._pump(reader, to_server, delayed=False)
                finally:
                    to_server.transport.abort()
                    answers.cancel()
                    await asyncio.wait({answers})
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                if delayed and self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
