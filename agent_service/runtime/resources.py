"""What a runtime owns: pools, a limiter, a bridge, Redis and a database; and how all of it is closed in time."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from agent_service.core.bridge import SyncBridge
from agent_service.core.deadline import Deadline
from agent_service.core.errors import RedisRefusedError, RedisUnavailableError
from agent_service.core.settings import Settings, get_settings
from agent_service.infrastructure.database.connection import open_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.redis.factory import close_everywhere_else
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.runtime.config import GlobalSymphonyConfig
from agent_service.runtime.executor import ContextThreadPool
from agent_service.runtime.limiter import ConcurrencyLimiter

__all__ = ["RuntimeResources"]

logger = logging.getLogger("agent_service.runtime")

_FINISHING: Final = 0.5
"""Share of the shutdown time in which tools may finish, before what they await on the loop is cancelled."""
_UNWINDING: Final = 0.3
"""Share in which they may then unwind; the rest is for closing connections."""


class RuntimeResources:
    """Pools, limiter, bridge and connections of one runtime. Creating them opens nothing and starts no thread.

    ``pool_user``, ``pool_tool`` and ``pool_agent`` are :class:`~agent_service.runtime.executor.ContextThreadPool`.

    :param config: sizes and addresses; the settings supply what it leaves out.
    :param redis: used instead of one made here, and not closed here.
    :param database: likewise.
    :raises ConfigurationError: for a URL that cannot be used.
    """

    loop: asyncio.AbstractEventLoop
    """The event loop of everything here, set when the runtime starts."""
    bridge: SyncBridge
    """Runs coroutines on that loop for other threads."""
    given: tuple[RedisManager | None, DatabaseManager | None]
    """Redis and database as they were given; those are not closed here."""

    def __init__(
        self, config: GlobalSymphonyConfig, redis: RedisManager | None, database: DatabaseManager | None
    ) -> None:
        self.config = config
        self.given = (redis, database)
        settings = get_settings()
        self.redis = redis if redis is not None else _redis(config, settings)
        self.database = database if database is not None else _database(config, settings)
        self.pool_user = ContextThreadPool("user", config.workers_user)
        self.pool_tool = ContextThreadPool("tool", config.workers_tool)
        self.pool_agent = ContextThreadPool("agent", config.workers_agent)
        self.limiter = ConcurrencyLimiter(config.max_concurrent)

    @property
    def _pools(self) -> Sequence[ContextThreadPool]:
        return (self.pool_user, self.pool_tool, self.pool_agent)

    def metrics(self) -> dict[str, Any]:
        """Return the current usage; no I/O.

        ``pools`` by name with ``workers``, ``busy`` and ``queued``; ``limiter`` with ``limit``, ``held``, ``waiting``,
        ``waits`` and ``wait_seconds``; ``bridge`` with the threads ``waiting`` on the loop; ``redis`` with
        ``configured`` and whether it answered last (``available``).
        """
        return {
            "pools": {pool.name: pool.metrics() for pool in self._pools},
            "limiter": self.limiter.metrics(),
            "bridge": {"waiting": self.bridge.waiting},
            "redis": {"configured": self.redis.is_configured, "available": self.redis.is_available},
        }

    async def _check_redis(self) -> None:
        if not self.redis.is_configured:
            return
        try:
            await self.redis.client.ping()
        except (RedisUnavailableError, RedisRefusedError) as exc:
            if not self.config.start_degraded:
                exc.add_note("The runtime was not created; start_degraded=True would start it without Redis.")
                raise
            if isinstance(exc, RedisRefusedError):  # An outage is logged by the client.
                logger.warning("The runtime starts without Redis at %s: %s", self.redis.client.target, exc)

    def abandon(self) -> None:
        """Close what can be closed without the event loop, which is closed already."""
        self.bridge.close()
        self._close_pools()

    def _close_pools(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _close(self, seconds: float) -> None:
        deadline = Deadline.after(seconds)
        self._close_pools()
        if await self._busy_after(seconds * _FINISHING):
            self.bridge.close()
            if busy := await self._busy_after(seconds * _UNWINDING):
                logger.warning("The runtime ends while %d threads still run tools", busy)
        self.bridge.close()
        await self._close_connections(deadline)

    async def _busy_after(self, seconds: float) -> int:
        """Wait until the pools are idle, ``seconds`` at most; return how much work still runs then."""
        work = [asyncio.wrap_future(each) for pool in self._pools for each in pool.unfinished()]
        if not work:
            return 0
        _, running = await asyncio.wait(work, timeout=seconds)
        for each in work:
            # Cancelling cannot stop a thread; it keeps the thread from reporting to a loop that is gone by then.
            if not each.cancel() and not each.cancelled():
                each.exception()  # its submitter handles it
        return len(running)

    async def _close_connections(self, deadline: Deadline) -> None:
        redis, database = self.given
        try:
            async with asyncio.timeout(deadline.left), AsyncExitStack() as stack:
                stack.push_async_callback(close_everywhere_else, self.redis)
                if redis is None:
                    stack.push_async_callback(self.redis.aclose)
                if database is None:
                    stack.push_async_callback(self.database.close)
        except TimeoutError:
            logger.warning("The runtime's connections were not closed in time")


def _redis(config: GlobalSymphonyConfig, settings: Settings) -> RedisManager:
    url = config.redis_url
    if url is None and settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
    return RedisManager(url, prefix=settings.cache_key_prefix, timeout=settings.redis_timeout)


def _database(config: GlobalSymphonyConfig, settings: Settings) -> DatabaseManager:
    return open_database(settings, config.database_url)
