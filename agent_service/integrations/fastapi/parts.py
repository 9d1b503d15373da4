"""What one service runs: which parts were asked for, and how each is opened and closed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from agent_service.core.errors import ConfigurationError, RuntimeStateError
from agent_service.core.logging import logger
from agent_service.core.supervision import Supervised
from agent_service.integrations.fastapi.closing import Closing
from agent_service.integrations.fastapi.readiness import Readiness
from agent_service.integrations.fastapi.shared import join, joined, leave

if TYPE_CHECKING:
    from agent_service.infrastructure.database.append.writer import SessionWriter
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.infrastructure.redis.manager import RedisManager
    from agent_service.runtime.config import GlobalSymphonyConfig
    from agent_service.runtime.runtime import AgentRuntime
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["Parts", "Wanted", "require_seconds"]

_DAY: Final = 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The parts that a service was asked for; see :class:`~agent_service.integrations.fastapi.service.AgentService`."""

    cache: bool
    database: "bool | str | DatabaseManager"
    writer: bool
    append_timeout: float
    cleanup: float | None
    purge_after: timedelta | None
    outbox: bool
    triggers: "Callable[[], TriggerRunner] | None"
    runtime: "bool | GlobalSymphonyConfig"
    background: Sequence[Callable[[], Awaitable[object]]]
    start_degraded: bool

    def require_possible(self) -> None:
        """Require that no part needs another one that was not asked for.

        :raises ConfigurationError: if one does.
        """
        needs = {"writer": self.writer, "cleanup": self.cleanup is not None, "outbox": self.outbox}
        for name, asked_for in needs.items():
            if asked_for and self.database is False:
                raise ConfigurationError(f"{name} needs a database; make the service with database=True, or without it")
        if self.outbox and not self.cache:
            raise ConfigurationError("outbox needs the cache that it invalidates; make the service with cache=True")
        if self.purge_after is not None and self.cleanup is None:
            raise ConfigurationError("purge_after is for the cleanup; make the service with cleanup=True")


def require_seconds(value: float, name: str) -> float:
    """Return a number of seconds above 0, at most a day.

    :raises ConfigurationError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _DAY:
        raise ConfigurationError(f"{name} must be seconds above 0, at most a day, got {value!r:.80}")
    return float(value)


@dataclass
class Parts:
    """The parts of a service that runs, on the event loop on which it was started.

    Rooms that were not asked for are not imported.
    """

    closing: Closing
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    redis: "RedisManager | None" = None
    database: "DatabaseManager | None" = None
    writer: "SessionWriter | None" = None
    runtime: "AgentRuntime | None" = None
    triggers: "TriggerRunner | None" = None
    background: list[Supervised] = field(default_factory=list)
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.readiness = Readiness(self)

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
        self.closing.add("the health checks", lambda _: self.readiness.close())
        for name, state in (await self.readiness.ask()).items():
            if state.status != "up" and not degraded:
                raise RuntimeStateError(f"the service does not start without its {name}: {state.reason}")
            if state.status != "up":
                logger.warning("the service starts although its %s is %s: %s", name, state.status, state.reason)

    async def _open_cache(self) -> None:
        from agent_service.infrastructure.cache.factory import close_cache, open_cache  # noqa: PLC0415
        from agent_service.infrastructure.redis.factory import get_redis_manager  # noqa: PLC0415

        join("cache")
        self.closing.add("the cache", lambda _: leave("cache", close_cache))
        await open_cache("")
        self.redis = await get_redis_manager()

    async def _open_database(self, wanted: "bool | str | DatabaseManager") -> None:
        from agent_service.core.settings import get_settings  # noqa: PLC0415
        from agent_service.infrastructure.database import connection  # noqa: PLC0415

        if wanted is True:
            join("database")
            self.closing.add("the database", lambda _: leave("database", connection.close_database))
            self.database = connection.get_database()
        elif isinstance(wanted, str):
            database = connection.open_database(get_settings(), wanted, setting="the argument database")
            self.closing.add("the database", lambda _: database.close())
            self.database = database
        elif wanted is not False:
            self.database = wanted
        if self.database is not None and self.database.embedded:
            await self.database.prepare()  # which may take longer than a check may

    async def _open_writer(self, timeout: float) -> None:  # noqa: ASYNC109 - of each append
        from agent_service.infrastructure.database.append.writer import SessionWriter  # noqa: PLC0415

        writer = SessionWriter(self.database, timeout=timeout)
        self.closing.add("the session writer", lambda _: writer.close())
        self.writer = await writer.__aenter__()

    async def _open_runtime(self, wanted: "bool | GlobalSymphonyConfig") -> None:
        from agent_service.runtime.config import GlobalSymphonyConfig  # noqa: PLC0415
        from agent_service.runtime.runtime import AgentRuntime  # noqa: PLC0415

        config = GlobalSymphonyConfig(start_degraded=True) if isinstance(wanted, bool) else wanted
        redis = self.redis if config.redis_url is None else None
        database = self.database if config.database_url is None else None
        ours = joined("runtime") or not _has_runtime()
        self.runtime = await AgentRuntime.create(config, redis=redis, database=database)
        if ours:
            join("runtime")
            self.closing.add("the runtime", lambda seconds: leave("runtime", partial(AgentRuntime.shutdown, seconds)))

    async def _open_triggers(self, make: "Callable[[], TriggerRunner]") -> None:
        self.triggers = make()
        self.closing.add("the trigger runner", self.triggers.stop)
        await self.triggers.start()

    def _start_background(self, wanted: Wanted) -> None:
        if wanted.cleanup is not None:
            from agent_service.infrastructure.database.maintenance.cleanup import run_cleanup  # noqa: PLC0415

            cleanup = partial(run_cleanup, interval=wanted.cleanup, purge_after=wanted.purge_after)
            self._supervise("cleanup", partial(cleanup, database=self.database))
        if wanted.outbox:
            from agent_service.infrastructure.outbox.run import run_outbox  # noqa: PLC0415

            self._supervise("outbox", partial(run_outbox, database=self.database))
        for work in wanted.background:
            self._supervise(getattr(work, "__qualname__", type(work).__qualname__), work)

    def _supervise(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        supervised = Supervised(name, work)
        self.background.append(supervised)
        task = asyncio.create_task(supervised.run(), name=f"agent-service-{name}")

        async def end(_seconds: float) -> None:
            task.cancel()
            await asyncio.wait({task})

        self.closing.add(name, end)


def _has_runtime() -> bool:
    """Say whether the application has a runtime of its own, which it ends itself."""
    from agent_service.runtime.runtime import AgentRuntime  # noqa: PLC0415

    try:
        AgentRuntime.get()
    except RuntimeStateError:
        return False
    return True
