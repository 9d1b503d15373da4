"""Where a saver works: its store, and the event loop that the store belongs to.

Coroutines of that loop call the store. Threads wait for a coroutine on that loop, and so do coroutines of other loops.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import SessionError
from agent_service.infrastructure.database.checkpoints.store import CheckpointStore
from agent_service.infrastructure.database.connection import close_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.integrations.langgraph.blocked import require_no_loop

__all__ = ["SaverLoop"]

T = TypeVar("T")


class SaverLoop:
    """A store that is opened once, with all copies of the saver sharing it.

    :param database: None is the one of the settings.
    :param timeout: seconds after which a write gives up.
    """

    def __init__(self, database: AsyncEngine | DatabaseManager | None, timeout: float) -> None:
        self._database = database
        self._timeout = timeout
        self._store: CheckpointStore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: SyncBridge | None = None

    async def open(self) -> None:
        """Open the store on the running event loop."""
        self._require_new()
        self._loop = asyncio.get_running_loop()
        self._bridge = SyncBridge(self._loop)
        try:
            await self._open()
        except BaseException:
            self._bridge = self._loop = None
            raise

    def open_for_threads(self) -> None:
        """Open the store on an event loop of its own, in a thread."""
        self._require_new()
        require_no_loop()
        self._bridge = SyncBridge()
        try:
            self._bridge.run(self._open(), None)
        except BaseException:
            self._bridge.close()
            self._bridge = self._loop = None
            raise

    async def close(self) -> None:
        """Wait until what is being written is committed. Later calls are refused."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def close_for_threads(self) -> None:
        """Do the same and end the loop of its own."""
        bridge = self._bridge
        if bridge is not None and not bridge.closed:
            try:
                bridge.run(self._close_all(), None)
            finally:
                bridge.close()

    async def call(self, work: Callable[[CheckpointStore], Coroutine[Any, Any, T]]) -> T:
        """Await what ``work`` does with the store, on the store's loop."""
        store, loop = self._opened()
        if asyncio.get_running_loop() is loop:
            return await work(store)
        if not loop.is_running():
            raise SessionError("the saver's event loop has ended; open the saver on the loop that runs the graph")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(store), loop))

    def wait(self, work: Callable[[CheckpointStore], Coroutine[Any, Any, T]]) -> T:
        """Wait in this thread for what ``work`` does with the store.

        :raises LoopBlockedError: this is the thread of a running event loop.
        """
        store, _ = self._opened()
        require_no_loop()
        assert self._bridge is not None
        return self._bridge.run(work(store), None)

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = await CheckpointStore.open(self._database, timeout=self._timeout)

    async def _close_all(self) -> None:
        await self.close()
        # Connections of this loop, which ends now; the engine can go on with others.
        if self._database is None:
            await close_database()
        elif isinstance(self._database, DatabaseManager):
            await self._database.engine.dispose()
        else:
            await self._database.dispose()

    def _opened(self) -> tuple[CheckpointStore, asyncio.AbstractEventLoop]:
        if self._store is None or self._loop is None:
            raise SessionError(
                "the saver is not open; use it within: async with AgentServiceSaver() as saver, or with, for code "
                "without an event loop"
            )
        return self._store, self._loop

    def _require_new(self) -> None:
        if self._bridge is not None:
            raise SessionError("the saver was opened before; make a new AgentServiceSaver")
