"""A TCP proxy between a client and a real server, for the faults that a network makes."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class TcpProxy:
    """
    Forwards every connection to a server, until told otherwise. An async context manager; runs in the test's loop.

    :param url: the server's URL.
    :param tls: speak TLS to the client; not every redis-server can do it by itself.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._target = urlsplit(url)
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._cut_after: int | None = None
        self._budget: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self.replied = 0

    @property
    def url(self) -> str:
        """The server's URL, by way of this proxy."""
        assert self._server is not None, "the proxy was not started"
        port = self._server.sockets[0].getsockname()[1]
        userinfo = self._target.netloc.rpartition("@")[:2]
        return urlunsplit(self._target._replace(netloc="".join((*userinfo, f"127.0.0.1:{port}"))))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        while self._pumps:
            for pump in self._pumps:
                pump.cancel()
            await asyncio.wait(self._pumps)
        await self._server.wait_closed()

    def lead_to(self, url: str) -> None:
        """Forward new connections to another server, as a name does after a failover, and drop the others."""
        self._target = urlsplit(url)
        self.drop()

    def stall(self) -> None:
        """Forward nothing more in either direction; connections stay, new ones are accepted."""
        self._open.clear()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._open.set()

    def hold(self) -> Callable[[], None]:
        """Stall the connections there are, while new ones work; give what lets them go on."""
        held, self._open = self._open, asyncio.Event()
        held.clear()
        self._open.set()
        return held.set

    def delay(self, seconds: float) -> None:
        """Hold back each chunk of the server's replies for a while."""
        self._delay = seconds

    def cut_reply_after(self, size: int | None) -> None:
        """Forward so many bytes of the next reply, then cut its connection; once. None: cut no reply after all."""
        self._cut_after = size

    def cut_after(self, total: int) -> None:
        """Forward so many bytes of replies from now on, then cut the connection that got the last of them; once."""
        self._budget = self.replied + total

    def send(self, data: bytes) -> None:
        """Send every client something that the server did not say."""
        for writer in self._clients:
            writer.write(data)

    def drop(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pump = asyncio.current_task()
        assert pump is not None
        self._pumps.add(pump)
        self._writers.add(writer)
        self._clients.add(writer)
        upstream_writer: asyncio.StreamWriter | None = None
        gate = self._open
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(
                self._target.hostname, self._target.port or 6379
            )
            self._writers.add(upstream_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, gate))
                group.create_task(self._pump(upstream_reader, writer, gate, replies=True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, upstream_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()
            self._clients.discard(writer)
            self._pumps.discard(pump)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, *, replies: bool = False
    ) -> None:
        while chunk := await reader.read(1 << 16):
            if replies and self._delay:
                await asyncio.sleep(self._delay)
            await gate.wait()
            if replies and self._cut_after is not None:
                chunk, self._cut_after = chunk[: self._cut_after], None
                writer.write(chunk)
                await writer.drain()
                raise ConnectionResetError
            if replies:
                self.replied += len(chunk)
                if self._budget is not None and self.replied >= self._budget:
                    rest, self._budget = chunk[: len(chunk) - (self.replied - self._budget)], None
                    writer.write(rest)
                    await writer.drain()
                    raise ConnectionResetError
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError
