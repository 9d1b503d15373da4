"""One object that owns the life of a service: what it opens, what runs beside its requests, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from agent_service.core.errors import ConfigurationError, RuntimeStateError
from agent_service.integrations.fastapi.closing import Closing
from agent_service.integrations.fastapi.opening import Opening
from agent_service.integrations.fastapi.parts import Parts
from agent_service.integrations.fastapi.problems import add_problem_handlers
from agent_service.integrations.fastapi.readiness import Readiness
from agent_service.integrations.fastapi.stopping import told_to_stop
from agent_service.integrations.fastapi.wanted import Wanted, require_seconds

if TYPE_CHECKING:
    from agent_service.infrastructure.cache.interface import ICache
    from agent_service.infrastructure.database.append.writer import SessionWriter
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.runtime.config import GlobalSymphonyConfig
    from agent_service.runtime.runtime import AgentRuntime
    from agent_service.tenants.runner import TriggerRunner

__all__ = ["AgentService", "Lifespan", "Resolver", "single_tenant"]

T = TypeVar("T")

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
Resolver: TypeAlias = Callable[[HTTPConnection], str | Awaitable[str]]

_CLEANUP_INTERVAL: Final = 60.0


def single_tenant(_connection: HTTPConnection) -> str:
    """Return the tenant of a service that has only one: ""."""
    return ""


class AgentService:
    """Owns what a FastAPI application needs of this package, from its start to its end.

    ::

        service = AgentService(writer=True, cleanup=True)
        app = FastAPI(lifespan=service.lifespan)
        service.install(app)

    Making it opens nothing and reads no setting; every start of the lifespan does. Only what is asked for is opened
    and imported. Services of the same event loop that use the settings' cache and database share them, and the last
    one closes them; nothing else is shared.

    A start does not wait for Redis or PostgreSQL: caches serve from memory, and the readiness check tells what is down.
    A start that fails closes what it has opened.

    :param cache: open the caches of the settings.
    :param database: True opens the database of the settings, a URL another one; a manager is used and not closed here.
    :param writer: open one :class:`SessionWriter` for all requests.
    :param append_timeout: seconds after which an append of the writer gives up.
    :param cleanup: run the cleanup of expired sessions, every 60 seconds or as many as are given.
    :param purge_after: let the cleanup also remove for good what was deleted longer ago than this.
    :param purge_threads_after: let it also remove LangGraph's threads to which nobody wrote for this long.
    :param purge_conversations_after: let it also remove Pydantic AI's conversations that were not saved for this long.
    :param outbox: apply the cache invalidations that were committed with transactions.
    :param triggers: makes a trigger runner; the class itself does.
    :param runtime: create the process's :class:`AgentRuntime`, with this configuration or, if True, the default one
        that starts without Redis too. It uses the service's own Redis and database, if they have no URL in it.
    :param background: further work that runs for as long as the service does; each is started again if it ends.
    :param tenant: returns the tenant of a request, plain or async. It may raise an HTTPException. Default: "".
    :param user: returns the user of a request, likewise; only the dependencies ``User`` and ``Shared`` need it.
    :param start_degraded: start although Redis or the database do not serve; False: such a start fails.
    :param shutdown_timeout: seconds that the end may take.
    :raises ConfigurationError: an argument cannot be used, or one part needs another that was not asked for.
    """

    def __init__(
        self,
        *,
        cache: bool = True,
        database: "bool | str | DatabaseManager" = True,
        writer: bool = False,
        append_timeout: float = 10.0,
        cleanup: bool | float = False,
        purge_after: timedelta | None = None,
        purge_threads_after: timedelta | None = None,
        purge_conversations_after: timedelta | None = None,
        outbox: bool = False,
        triggers: "Callable[[], TriggerRunner] | None" = None,
        runtime: "bool | GlobalSymphonyConfig" = False,
        background: Sequence[Callable[[], Awaitable[object]]] = (),
        tenant: Resolver = single_tenant,
        user: Resolver | None = None,
        start_degraded: bool = True,
        shutdown_timeout: float = 10.0,
    ) -> None:
        for name, resolver in (("tenant", tenant), ("user", user)):
            if not callable(resolver) and not (name == "user" and resolver is None):
                raise ConfigurationError(f"{name} must be a function of a request, got {resolver!r:.80}")
        self.tenant = tenant
        self.user = user
        self._wanted = Wanted(
            cache=cache,
            database=database,
            writer=writer,
            append_timeout=require_seconds(append_timeout, "append_timeout"),
            cleanup=_interval(cleanup),
            purge_after=purge_after,
            purge_threads_after=purge_threads_after,
            purge_conversations_after=purge_conversations_after,
            outbox=outbox,
            triggers=triggers,
            runtime=runtime,
            background=tuple(background) if isinstance(background, list | tuple) else background,
            start_degraded=start_degraded,
        )
        self._wanted.require_possible()
        self._shutdown_timeout = require_seconds(shutdown_timeout, "shutdown_timeout")
        self._parts: Parts | None = None
        self._readiness: Readiness | None = None
        self.started = False
        """Whether it serves: from the end of the start to the beginning of the end."""

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the service for as long as an application runs: ``FastAPI(lifespan=service.lifespan)``.

        Handlers of the application find it; :meth:`install` is for its errors.

        :raises RuntimeStateError: it runs already.
        """
        if self._parts is not None:
            raise RuntimeStateError("this service runs already; make an AgentService for each application")
        closing = Closing()
        parts = self._parts = Parts()
        readiness = self._readiness = Readiness(parts)
        try:
            async with told_to_stop(parts.stopping):
                await Opening(parts, readiness, closing).open(self._wanted)
                app.state.agent_service = self
                self.started = True
                yield
        finally:
            self.started = False
            parts.stopping.set()
            try:
                await closing.run(self._shutdown_timeout)
            finally:
                self._parts = self._readiness = None

    def lifespan_with(self, lifespan: Lifespan) -> Lifespan:
        """Return a lifespan that runs the application's own one within that of the service.

        ``FastAPI(lifespan=service.lifespan_with(own))``: the own one starts after the service and ends before it. What
        it yields becomes the state of requests, as without the service.
        """

        @asynccontextmanager
        async def both(app: FastAPI) -> AsyncIterator[Any]:
            async with self.lifespan(app), lifespan(app) as state:
                yield state

        return both

    def install(self, app: FastAPI) -> None:
        """Let an application answer errors with problem documents, and find this service.

        Call it before the application starts; calling it again changes nothing. An application that is mounted in
        another one has no lifespan of its own: install the same service in it.
        """
        add_problem_handlers(app)
        app.state.agent_service = self

    @property
    def parts(self) -> Parts:
        """What runs now.

        :raises RuntimeStateError: the service does not run.
        """
        if self._parts is None:
            raise _not_running()
        return self._parts

    @property
    def readiness(self) -> Readiness:
        """What health checks ask.

        :raises RuntimeStateError: the service does not run.
        """
        if self._readiness is None:
            raise _not_running()
        return self._readiness

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the service begins to end, also at SIGTERM or SIGINT, before the server waits for connections.

        Streams end then: ``subscribe(..., until=service.stopping)``.
        """
        return self.parts.stopping

    @property
    def database(self) -> "DatabaseManager":
        """The database of this service.

        :raises RuntimeStateError: the service does not run, or was not asked for one.
        """
        return _given(self.parts.database, "database")

    @property
    def writer(self) -> "SessionWriter":
        """The writer that all requests share.

        :raises RuntimeStateError: the service does not run, or was not asked for one.
        """
        return _given(self.parts.writer, "writer")

    @property
    def runtime(self) -> "AgentRuntime":
        """The runtime.

        :raises RuntimeStateError: the service does not run, or was not asked for one.
        """
        return _given(self.parts.runtime, "runtime")

    async def cache(self, namespace: str = "") -> "ICache[Any]":
        """Return the cache of a namespace.

        :raises RuntimeStateError: the service does not run, or was not asked for caches.
        :raises CacheKeyError: the namespace cannot be used.
        """
        from agent_service.infrastructure.cache.factory import get_cache  # noqa: PLC0415 - only if asked for

        _given(self.parts.redis, "cache")
        return await get_cache(namespace)


def _not_running() -> RuntimeStateError:
    return RuntimeStateError("the service does not run; start it by FastAPI(lifespan=service.lifespan)")


def _given(part: T | None, name: str) -> T:
    if part is None:
        raise RuntimeStateError(f"this service has no {name}; make it with AgentService({name}=True)")
    return part


def _interval(cleanup: bool | float) -> float | None:
    if isinstance(cleanup, bool):
        return _CLEANUP_INTERVAL if cleanup else None
    return require_seconds(cleanup, "cleanup")
