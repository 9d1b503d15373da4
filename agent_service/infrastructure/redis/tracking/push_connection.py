"""One RESP3 connection that brings replies and pushes, in the order in which the server sent them.

redis-py delivers pushes only while a coroutine waits for a reply. Here they are handled synchronously, at the moment at
which they are read. So when a reply arrives, every push before it has already had its effect.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.transport.arrived import is_ready
from agent_service.infrastructure.redis.transport.base import Argument, Command
from agent_service.infrastructure.redis.transport.tls import tls_of

__all__ = ["Address", "PushConnection", "PushConnector"]

Address = tuple[str, int]

_INCOMPLETE: Final = object()


class PushConnection(asyncio.Protocol):
    """A connection on which commands are sent when the replies to the previous ones have arrived.

    It ends with the first failure.

    :param on_push: called for each push as it is read; an exception of it ends the connection.
    :param on_lost: called once, at the moment the connection ends, for whatever reason.
    """

    def __init__(self, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        """Why it ended; None while it lives."""
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._waiting: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._awaited = 0
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=_INCOMPLETE
        )

    def send(self, *commands: Command) -> asyncio.Future[list[Any]]:
        """Write commands. The future returns their replies; errors, and why a reply is missing, as exceptions."""
        if self._waiting is not None:
            raise RuntimeError("replies to the previous commands are still to come")
        waiting: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport is None or self.failure is not None:
            waiting.set_result([self.failure or RedisConnectionError("not connected")] * len(commands))
            return waiting
        self._waiting, self._replies, self._awaited = waiting, [], len(commands)
        self._transport.write(b"".join([hiredis.pack_command(tuple(each)) for each in commands]))  # type: ignore[arg-type]
        return waiting

    def has_arrived(self) -> bool:
        """Return whether the connection holds bytes that were not read yet."""
        return self._transport is not None and is_ready(self._transport)

    async def ask(self, *command: Argument) -> Any:
        """Send a command and return its reply. A caller that stops waiting must close the connection."""
        (reply,) = await self.send(command)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Cut the connection."""
        self.end(RedisConnectionError("the connection was closed"))
        await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # other loops' transports need not derive from it

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while self.failure is None and (item := self._reader.gets()) is not _INCOMPLETE:
                if isinstance(item, hiredis.PushNotification):
                    self._on_push(item)
                else:
                    self._answer(item)
        except Exception as exc:  # noqa: BLE001 - after a push without its effect, nothing later can be relied on
            self.end(exc)

    def _answer(self, reply: Any) -> None:
        if self._waiting is None:
            raise InvalidResponse("the server sent a reply that nobody asked for")
        self._replies.append(reply)
        if len(self._replies) == self._awaited:
            self._hand_over()

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or RedisConnectionError("the server closed the connection"))
        self._closed.set_result(None)

    def end(self, failure: Exception) -> None:
        """Cut the connection at once, unless it has ended already."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._transport is not None:
            self._transport.abort()
        self._replies += [failure] * (self._awaited - len(self._replies))
        self._hand_over()
        self._on_lost()


class PushConnector:
    """Opens push connections to the servers of one target."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._tls = tls_of(target)

    async def open(
        self, address: Address | None, *, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]
    ) -> PushConnection:
        """Connect, log in and choose the database, in RESP3. Waits as long as the server does.

        :param address: host and port; None: the unix socket of the target.
        """
        loop = asyncio.get_running_loop()

        def make() -> PushConnection:
            return PushConnection(on_push, on_lost)

        if address is None:
            if self._target.embedded:
                await self._join()
            _, connection = await loop.create_unix_connection(make, self._target.path)
        else:
            tls = await self._tls.context() if self._tls is not None else None
            _, connection = await loop.create_connection(make, *address, ssl=tls)
        try:
            for command in self._greeting():
                await connection.ask(*command)
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def _join(self) -> None:
        from agent_service.infrastructure.redis.embedded.server import (  # noqa: PLC0415 - others do not pay for it
            embedded_server,
        )

        server = embedded_server(self._target)
        if not server.joined:
            await server.join()

    def _greeting(self) -> list[Command]:
        name = f"{self._target.options.get('client_name') or 'agent_service'}-invalidations"
        password = self._target.password
        login = ("AUTH", self._target.username or "default", password) if password is not None else ()
        greeting: list[Command] = [("HELLO", 3, *login, "SETNAME", name)]
        if self._target.db:
            greeting.append(("SELECT", self._target.db))
        return greeting
