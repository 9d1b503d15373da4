"""A PostgreSQL that a test stops and starts again, at an address that stays the same."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.servers.postgres import PostgresServer, _binaries, _in_memory, _server, serving
from tests.servers.proxy import TcpProxy


class RestartablePostgres:
    """A server of its own behind a proxy; made by :func:`restartable_postgres`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._binaries, self._account = _binaries(home)
        self._running: contextlib.AbstractContextManager[PostgresServer] | None = None
        self._proxy: TcpProxy | None = None

    @property
    def url(self) -> str:
        """The address of the database ``postgres``, as the package takes it."""
        assert self._proxy is not None, "the server was not started"
        return self._proxy.url.replace("postgresql:", "postgresql+asyncpg:")

    async def start(self) -> None:
        """Start it, with all that was committed before it was stopped."""
        options: dict[str, Any] = {"fsync": "off"}
        made = (self._home / "data" / "PG_VERSION").exists()
        running = (
            serving(self._binaries, self._home, self._account, **options)
            if made
            else _server(self._binaries, self._home, self._account, durable=False)
        )
        server = await asyncio.to_thread(running.__enter__)
        self._running = running
        if self._proxy is None:
            self._proxy = await TcpProxy(server.url).__aenter__()
        self._proxy.lead_to(server.url)

    async def stop(self) -> None:
        """Stop it as an operator does who does not wait for clients (fast shutdown)."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(running.__exit__, None, None, None)

    async def aclose(self) -> None:
        """Stop it for good."""
        await self.stop()
        if self._proxy is not None:
            await self._proxy.__aexit__()


@asynccontextmanager
async def restartable_postgres() -> AsyncIterator[RestartablePostgres]:
    """Run a server of its own until the end of the block."""
    home = Path(tempfile.mkdtemp(prefix="agent-service-pg-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        server = RestartablePostgres(home)
        stack.enter_context(_in_memory(home, server._account))
        stack.push_async_callback(server.aclose)
        await server.start()
        yield server
