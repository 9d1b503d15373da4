"""Open the parts of a service, and say how each is closed. Rooms that are not wanted are not imported."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from agent_service.core.errors import RuntimeStateError
from agent_service.core.logging import logger
from agent_service.core.supervision import Supervised
from agent_service.integrations.fastapi.closing import Closing
from agent_service.integrations.fastapi.parts import Parts
from agent_service.integrations.fastapi.readiness import Readiness
from agent_service.integrations.fastapi.shared import join, joined, leave
from agent_service.integrations.fastapi.wanted import Wanted

if TYPE_CHECKING:
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.runtime.config import GlobalSymphonyConfig
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["Opening"]


class Opening:
    """Opens parts, one after the other, and adds the step that closes each."""

    def __init__(self, parts: Parts, readiness: Readiness, closing: Closing) -> None:
        self._parts = parts
        self._readiness = readiness
        self._closing = closing

    async def open(self, wanted: Wanted) -> None:
        """Open what is wanted, in the order in which one part may use another."""
        if wanted.cache:
            await self._open_cache()
        if wanted.database is not False:
            await self._open_database(wanted.database)
        await self._look_around(degraded=wanted.start_degraded)
        if wanted.writer:
            await self._open_writer(wanted.append_timeout)
        if wanted.runtime is not False:
            await self._open_runtime(wanted.runtime)
        if wanted.triggers is not None:
            await self._open_triggers(wanted.triggers)
        self._start_background(wanted)

    async def _look_around(self, *, degraded: bool) -> None:
        """Ask what was opened whether it serves, so that no request is the first to connect, and the log tells."""
        self._closing.add("the health checks", lambda _: self._readiness.close())
        for name, state in (await self._readiness.ask()).items():
            if state.status != "up" and not degraded:
                raise RuntimeStateError(f"the service does not start without its {name}: {state.reason}")
            if state.status != "up":
                logger.warning("the service starts although its %s is %s: %s", name, state.status, state.reason)

    async def _open_cache(self) -> None:
        from agent_service.infrastructure.cache.factory import close_cache, open_cache  # noqa: PLC0415
        from agent_service.infrastructure.redis.factory import get_redis_manager  # noqa: PLC0415

        join("cache")
        self._closing.add("the cache", lambda _: leave("cache", close_cache))
        await open_cache("")
        self._parts.redis = await get_redis_manager()

    async def _open_database(self, wanted: "bool | str | DatabaseManager") -> None:
        from agent_service.core.settings import get_settings  # noqa: PLC0415
        from agent_service.infrastructure.database import connection  # noqa: PLC0415

        if wanted is True:
            join("database")
            self._closing.add("the database", lambda _: leave("database", connection.close_database))
            self._parts.database = connection.get_database()
        elif isinstance(wanted, str):
            database = connection.open_database(get_settings(), wanted, setting="the argument database")
            self._closing.add("the database", lambda _: database.close())
            self._parts.database = database
        elif wanted is not False:
            self._parts.database = wanted
        if self._parts.database is not None and self._parts.database.embedded:
            await self._parts.database.prepare()  # which may take longer than a check may

    async def _open_writer(self, timeout: float) -> None:  # noqa: ASYNC109 - of each append
        from agent_service.infrastructure.database.append.writer import SessionWriter  # noqa: PLC0415

        writer = SessionWriter(self._parts.database, timeout=timeout)
        self._closing.add("the session writer", lambda _: writer.close())
        self._parts.writer = await writer.__aenter__()

    async def _open_runtime(self, wanted: "bool | GlobalSymphonyConfig") -> None:
        from agent_service.runtime.config import GlobalSymphonyConfig  # noqa: PLC0415
        from agent_service.runtime.runtime import AgentRuntime  # noqa: PLC0415

        config = GlobalSymphonyConfig(start_degraded=True) if isinstance(wanted, bool) else wanted
        redis = self._parts.redis if config.redis_url is None else None
        database = self._parts.database if config.database_url is None else None
        ours = joined("runtime") or not _has_runtime()
        self._parts.runtime = await AgentRuntime.create(config, redis=redis, database=database)
        if ours:
            join("runtime")
            self._closing.add("the runtime", lambda seconds: leave("runtime", partial(AgentRuntime.shutdown, seconds)))

    async def _open_triggers(self, make: "Callable[[], TriggerRunner]") -> None:
        self._parts.triggers = make()
        self._closing.add("the trigger runner", self._parts.triggers.stop)
        await self._parts.triggers.start()

    def _start_background(self, wanted: Wanted) -> None:
        if wanted.cleanup is not None:
            from agent_service.infrastructure.database.maintenance.cleanup import run_cleanup  # noqa: PLC0415

            cleanup = partial(
                run_cleanup,
                interval=wanted.cleanup,
                purge_after=wanted.purge_after,
                purge_threads_after=wanted.purge_threads_after,
                purge_conversations_after=wanted.purge_conversations_after,
                database=self._parts.database,
            )
            self._supervise("cleanup", cleanup)
        if wanted.outbox:
            from agent_service.infrastructure.outbox.run import run_outbox  # noqa: PLC0415

            self._supervise("outbox", partial(run_outbox, database=self._parts.database))
        for work in wanted.background:
            self._supervise(_name_of(work), work)

    def _supervise(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        supervised = Supervised(name, work)
        self._parts.background.append(supervised)
        task = asyncio.create_task(supervised.run(), name=f"agent-service-{name}")

        async def end(_seconds: float) -> None:
            task.cancel()
            await asyncio.wait({task})

        self._closing.add(name, end)


def _name_of(work: object) -> str:
    while isinstance(work, partial):
        work = work.func
    return getattr(work, "__qualname__", type(work).__qualname__)


def _has_runtime() -> bool:
    """Say whether the application has a runtime of its own, which it ends itself."""
    from agent_service.runtime.runtime import AgentRuntime  # noqa: PLC0415

    try:
        AgentRuntime.get()
    except RuntimeStateError:
        return False
    return True
