"""Connections to an embedded server, the first of which starts it."""

from typing import Any

from redis.asyncio import UnixDomainSocketConnection

from agent_service.infrastructure.redis.embedded.server import EmbeddedServer, embedded_server

__all__ = ["EmbeddedConnection", "embedded_server"]


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection to a server that this process starts if nobody has, and if its supervisor was killed."""

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(**options)
        self._server = server

    async def _connect(self) -> None:
        if not self._server.joined:
            await self._server.join()
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except (FileNotFoundError, ConnectionRefusedError):
            if not await self._server.revive():
                raise
            await super()._connect()  # type: ignore[no-untyped-call]
