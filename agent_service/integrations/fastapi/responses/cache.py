"""The cache in front of a route: which request it answers, and from where."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from agent_service.core.errors import CacheValueError, ConfigurationError
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.loads.loading import Obtained
from agent_service.integrations.fastapi.responses.directives import directives, seconds_of
from agent_service.integrations.fastapi.responses.load import RouteLoad, ServerFailed
from agent_service.integrations.fastapi.responses.options import ResponseOptions
from agent_service.integrations.fastapi.responses.plan import Asked, RoutePlan
from agent_service.integrations.fastapi.responses.running import IN_LOAD, SCOPE_KEY, STATUS_KEY, Answered, RunningRoute
from agent_service.integrations.fastapi.responses.serving import answer, gateway_timeout, unchanged
from agent_service.integrations.fastapi.responses.stored import StoredResponse, read_stored
from agent_service.integrations.fastapi.responses.storing import YEAR

__all__ = ["ResponseCache"]

_MISS: Final = "fwd=uri-miss"
_COLLAPSED: Final = "fwd=uri-miss; collapsed"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class ResponseCache:
    """The dependency that :func:`cache_response` gives."""

    def __init__(self, options: ResponseOptions) -> None:
        self._options = options

    async def __call__(self, request: Request) -> None:
        """End the request with a response of the cache, or let the route answer it.

        :raises ConfigurationError: the route is no :class:`CachedRoute`.
        """
        running = request.scope.get(SCOPE_KEY)
        if running is IN_LOAD:
            return
        if not isinstance(running, RunningRoute):
            raise ConfigurationError(
                f"cache_response is a dependency of {request.url.path}, whose route no cache can answer; make its "
                "router with APIRouter(route_class=CachedRoute), or set app.router.route_class before the routes"
            )
        plan = running.known.get(self)
        if plan is None:
            plan = running.known[self] = RoutePlan(self._options, running, self)
        asked = "fwd=bypass; detail=stream" if running.streams else plan.look(request)
        if isinstance(asked, Asked):
            response = await self._answer(request, running, plan, asked)
            if isinstance(response, Response):
                raise Answered(response)
            asked = response
        request.scope[STATUS_KEY] = asked

    async def _answer(self, request: Request, running: RunningRoute, plan: RoutePlan, asked: Asked) -> Response | str:
        """Return the response, or why the route must answer this caller itself, in the words of Cache-Status."""
        cache = self._options.cache or await open_cache(self._options.namespace)
        wishes = directives(asked.headers["cache-control"]) if "cache-control" in asked.headers else _NOTHING
        if self._options.client_reload:
            if "no-store" in wishes:
                return "fwd=request; detail=no-store"
            if not wishes and asked.headers.get("pragma", "").lower() == "no-cache":  # RFC 9111, 5.4
                wishes = {"no-cache": ""}
        key = plan.key(request.scope, asked, await self._identity(request))
        load = RouteLoad(request.scope, running, plan, asked, key=key, cache=cache)
        policy = plan.policy(cache.default_ttl)
        try:
            if "only-if-cached" in wishes:
                found = await cache.backend.read(key, asked.tags)
                if found is None or found.left <= 0:
                    return gateway_timeout()
                obtained = Obtained(found.value, found.level, found.age, None)
            elif self._options.client_reload and _forces_load(wishes):
                obtained = await cache.loading.load(key, load, policy, asked.tags, fresh=True)
            else:
                obtained = await cache.loading.obtain(key, load, policy, asked.tags)
            stored = self._usable(cache, obtained, wishes)
            if stored is None:
                obtained = await cache.loading.load(key, load, policy, asked.tags, fresh=True)
                stored = read_stored(obtained.value)
        except ServerFailed as failed:
            obtained, stored = Obtained(None, "load", 0.0, None), read_stored(failed.args)
        head = request.scope["method"] == "HEAD"
        if stored is None or stored.withheld:
            mine, status = load.captured, f"{_MISS}; detail={'damage' if stored is None else stored.withheld}"
            return status if mine is None or mine.streams else unchanged(mine, head=head, status=status)
        hit = obtained.level != "load"
        return answer(
            stored, asked.headers, head=head, age=obtained.age if hit else None,
            status=_hit(stored, obtained) if hit else _MISS if load.captured is not None else _COLLAPSED,
        )  # fmt: skip

    def _usable(self, cache: BaseCache[Any], obtained: Obtained, wishes: Mapping[str, str]) -> StoredResponse | None:
        """Return what was obtained; None: the response must be loaded for this request."""
        stored = read_stored(obtained.value)
        if obtained.encoded is not None:
            return stored
        if stored is None:  # damage, or the bytes of another version
            cache.loading.withdraw(obtained)
            return None
        if obtained.stale_reason is not None and not stored.stale_allowed:
            cache.loading.withdraw(obtained)
            return None
        if wishes and self._options.client_reload:
            age = stored.age + (obtained.age or 0.0)
            most, least = seconds_of(wishes, "max-age"), seconds_of(wishes, "min-fresh")
            if (most is not None and age > most) or (least is not None and stored.lifetime + stored.age - age < least):
                cache.loading.withdraw(obtained)
                return None
        return stored

    async def _identity(self, request: Request) -> str | None:
        if self._options.identity is None:
            return None
        found = self._options.identity(request)
        identity = await found if inspect.isawaitable(found) else found
        if not isinstance(identity, str) or not identity:
            raise CacheValueError(
                f"identity= must return a text that is not empty, got {type(identity).__name__}; raise an "
                "HTTPException for a request of nobody"
            )
        return identity


def _hit(stored: StoredResponse, obtained: Obtained) -> str:
    left = int(min(stored.lifetime, YEAR) - (obtained.age or 0.0))
    return f"hit; ttl={left}" if obtained.stale_reason is None else f"hit; ttl={left}; detail={obtained.stale_reason}"


def _forces_load(wishes: Mapping[str, str]) -> bool:
    return "no-cache" in wishes or seconds_of(wishes, "max-age") == 0
