"""One runtime per process: created at start-up, available everywhere, ended without stopping the loop."""

import asyncio
import math
import threading
from enum import Enum
from types import TracebackType
from typing import Final, Self

from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import ConfigurationError, RuntimeStateError
from agent_service.core.forking import renew_after_fork
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.redis.factory import redis_manager_like
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.source import set_redis_source
from agent_service.runtime.config import GlobalSymphonyConfig
from agent_service.runtime.resources import RuntimeResources

__all__ = ["AgentRuntime", "GlobalSymphony"]

SHUTDOWN_TIMEOUT: Final = 10.0
"""Seconds that a shutdown may take."""

_live: "AgentRuntime | None" = None
_lock = threading.Lock()


class _Phase(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"


class AgentRuntime(RuntimeResources):
    """The runtime of agents and their tools; ``GlobalSymphony`` is another name for it.

    ::

        async with AgentRuntime(GlobalSymphonyConfig(redis_url="redis://localhost:6379/0")) as runtime:
            await runtime.loop.run_in_executor(runtime.pool_tool, tool.run)

    A process has at most one; :meth:`get` returns it in any thread. It belongs to the event loop on which it was
    started: ``bridge`` runs coroutines there for threads. Repositories of tenants and ``ops`` use ``redis`` there, and
    connections of their own to the same Redis on other loops. An instance is started once; a forked process starts
    with none.

    :param config: None: all defaults.
    :param redis: used instead of one made from the config, and not closed here.
    :param database: likewise.
    :raises ConfigurationError: for a URL that cannot be used.
    """

    def __init__(
        self,
        config: GlobalSymphonyConfig | None = None,
        *,
        redis: RedisManager | None = None,
        database: DatabaseManager | None = None,
    ) -> None:
        super().__init__(config if config is not None else GlobalSymphonyConfig(), redis, database)
        self._phase = _Phase.NEW
        self._settled = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def create(
        cls,
        config: GlobalSymphonyConfig | None = None,
        *,
        redis: RedisManager | None = None,
        database: DatabaseManager | None = None,
    ) -> "AgentRuntime":
        """Start the process's runtime on the running loop, or return the live one there if its config is equal.

        A start that fails leaves nothing behind: no instance, thread or connection.

        :raises RedisUnavailableError: if Redis does not answer and ``start_degraded`` is not set.
        :raises RuntimeStateError: if one lives with another config, redis or database, or on another event loop.
        :raises ConfigurationError: if a URL cannot be used.
        """
        wanted = cls(config, redis=redis, database=database)
        while (live := _living_here()) is not None:
            if await live.settled():
                live.require_equal(wanted)
                return live
        return await wanted.__aenter__()

    @classmethod
    def get(cls) -> "AgentRuntime":
        """Return the live runtime, in any thread.

        :raises RuntimeStateError: if there is none (a :class:`RuntimeError`).
        """
        live = _live
        if live is None or not live.is_started:
            raise RuntimeStateError("there is no runtime; await AgentRuntime.create(config) at start-up")
        if live.loop.is_closed():
            raise RuntimeStateError("the runtime's event loop was closed; create a runtime on the new one")
        return live

    @classmethod
    async def shutdown(cls, timeout: float = SHUTDOWN_TIMEOUT) -> None:  # noqa: ASYNC109 - a budget for several steps
        """End the live runtime within ``timeout`` seconds, without stopping the loop. Does nothing if there is none.

        The pools take no more work and cancel what is queued. Running tools may finish in the first half of the time;
        then what they await through ``bridge`` is cancelled, which raises ``BridgeError`` in them. Threads that still
        run after that are logged and left running: no thread can be ended from outside. Last, the connections that
        the runtime opened are closed. Cancelling the caller does not stop the shutdown.

        :raises RuntimeStateError: if the runtime lives on another event loop that still runs.
        :raises ConfigurationError: if the timeout is below 0.
        """
        if not 0 <= timeout < math.inf:
            raise ConfigurationError(f"timeout must be a finite number of seconds, 0 or more, got {timeout!r:.80}")
        live = _living_here()
        if live is not None and await live.settled():
            await live.end(timeout)

    async def __aenter__(self) -> Self:
        self._become_the_live_one()
        try:
            await self._check_redis()
        except BaseException:
            await self.end()
            raise
        self._phase = _Phase.RUNNING
        self._settled.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end()

    @property
    def is_started(self) -> bool:
        """Whether it serves: from the end of the start to the end of the shutdown, while tools still finish."""
        return self._phase in {_Phase.RUNNING, _Phase.ENDING}

    async def settled(self) -> bool:
        """Wait while it starts or ends; return whether it runs then."""
        while self._phase in {_Phase.STARTING, _Phase.ENDING}:
            await self._settled.wait()
        return self._phase is _Phase.RUNNING

    def require_equal(self, other: "AgentRuntime") -> None:
        """Require that another runtime would be equal to this one.

        :raises RuntimeStateError: if it would not.
        """
        if self.config != other.config:
            raise RuntimeStateError(
                f"a runtime lives with another config, {self.config}, not {other.config} (URLs, which may differ, are "
                "not shown); shut it down first"
            )
        if self.given != other.given:
            raise RuntimeStateError("a runtime lives with another redis or database; shut it down first")

    def _become_the_live_one(self) -> None:
        global _live
        if _living_here() is not None:
            raise RuntimeStateError("a runtime lives already; take AgentRuntime.get(), or shut it down first")
        if self._phase is not _Phase.NEW:
            raise RuntimeStateError("this runtime was started before; make a new one")
        with _lock:
            if _live is not None:
                raise RuntimeStateError("a runtime was started on another event loop just now")
            self.loop = asyncio.get_running_loop()
            self.bridge = SyncBridge(self.loop)
            self._phase = _Phase.STARTING
            _live = self
        set_redis_source(_redis_of_the_live_one)

    async def end(self, seconds: float = SHUTDOWN_TIMEOUT) -> None:
        """Shut this instance down, as :meth:`shutdown` does; calling it again does nothing."""
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.ENDING
            self._settled.clear()
        if self._ending is None and self._phase in {_Phase.STARTING, _Phase.ENDING}:
            self._ending = asyncio.create_task(self._end(seconds))
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def _end(self, seconds: float) -> None:
        global _live
        try:
            await self._close(seconds)
        finally:
            with _lock:
                _live = None
            self._phase = _Phase.ENDED
            self._settled.set()


GlobalSymphony = AgentRuntime


def _living_here() -> AgentRuntime | None:
    """Return the live runtime, if it is this loop's. One whose loop was closed is ended as far as possible."""
    global _live
    with _lock:
        live = _live
        if live is None or live.loop is asyncio.get_running_loop():
            return live
        if not live.loop.is_closed():
            raise RuntimeStateError("a runtime lives on another event loop; shut it down there first")
        _live = None
    live.abandon()
    return None


def _redis_of_the_live_one() -> RedisManager | None:
    live = _live
    if live is None:
        return None
    return live.redis if live.loop is asyncio.get_running_loop() else redis_manager_like(live.redis)


def _forget_parent() -> None:
    global _live, _lock
    _live = None
    _lock = threading.Lock()


renew_after_fork(_forget_parent)
