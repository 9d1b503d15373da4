"""The load of a response: the route runs for the cache, and what it answers is judged."""

from typing import Any

from starlette.types import Scope

from agent_service.core.logging import logger
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.integrations.fastapi.responses.capture import Captured, run_captured
from agent_service.integrations.fastapi.responses.plan import Asked, RoutePlan
from agent_service.integrations.fastapi.responses.running import IN_LOAD, SCOPE_KEY, RunningRoute

__all__ = ["RouteLoad", "ServerFailed"]


class ServerFailed(Exception):  # noqa: N818 - the caller gets the response, not this
    """The route answered with a server error; ``args`` are the response, as the cache would keep it."""


class RouteLoad:
    """Loads the response to a request; a loader for the cache."""

    def __init__(
        self, scope: Scope, running: RunningRoute, plan: RoutePlan, asked: Asked, *, key: str, cache: BaseCache[Any]
    ) -> None:
        self._scope = scope
        self._running = running
        self._plan = plan
        self._asked = asked
        self._key = key
        self._cache = cache
        self.captured: Captured | None = None
        """What the route sent; None: it was not this load that ran, but one that began for another caller, or none."""

    async def __call__(self) -> tuple[object, ...]:
        """Return the response as a value for the cache.

        :raises ServerFailed: for a server error that is not to be stored, so that a stale response may take its place.
        """
        query = self._asked.query.encode("latin-1")
        captured = await run_captured(self._running.app, self._scope, {SCOPE_KEY: IN_LOAD, "query_string": query})
        self.captured = captured
        if captured.streams and not self._running.streams:
            self._running.streams = True
            logger.warning(
                "%s streams its response, so the cache lets its requests through; remove cache_response from it",
                self._running.endpoint.__qualname__,
            )
        stored = self._plan.judge(captured, self._cache.default_ttl)
        if not stored.lifetime:
            if stored.status >= 500:
                raise ServerFailed(*stored.to_value())
            if self._plan.loads_again:  # what is kept is no longer what the route says
                await self._cache.delete(self._key)
        return stored.to_value()
