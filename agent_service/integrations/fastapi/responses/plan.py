"""What one cache does with the requests of one route: found out once, from the options and the route's declaration."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from starlette.requests import Request

from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.loads.policy import LoadPolicy, make_policy
from agent_service.integrations.fastapi.dependencies.tenancy import tenant_of, user_of
from agent_service.integrations.fastapi.responses.capture import Captured
from agent_service.integrations.fastapi.responses.declared import (
    declared_credentials,
    declared_headers,
    effective_declarations,
    walk,
)
from agent_service.integrations.fastapi.responses.keys import key_of, query_text, request_headers
from agent_service.integrations.fastapi.responses.options import ResponseOptions
from agent_service.integrations.fastapi.responses.running import RunningRoute
from agent_service.integrations.fastapi.responses.stored import StoredResponse
from agent_service.integrations.fastapi.responses.storing import stored_of
from agent_service.integrations.fastapi.responses.tags import RouteTags
from agent_service.integrations.fastapi.service import single_tenant

__all__ = ["Asked", "RoutePlan"]

_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_PARTIAL: Final = frozenset({"range", "if-match", "if-unmodified-since"})
"""What asks the route itself: for a part, or whether the state is still the expected one (RFC 9111, 4.3.2)."""


class Asked(NamedTuple):
    """A request that the cache may answer."""

    headers: Mapping[str, str]
    query: str
    """The part of the query string that tells requests apart."""
    tags: tuple[str, ...]


class RoutePlan:
    """See the module's docstring.

    :param cache: the dependency that is the cache; what is declared before it runs for every request.
    :param app: the application that serves the route.
    """

    def __init__(self, options: ResponseOptions, running: RunningRoute, cache: object, app: FastAPI) -> None:
        self._options = options
        self._methods = running.methods
        declarations = effective_declarations(app, running.route)
        declared = [each for every in declarations for each in walk(every)]
        headers, queries = declared_credentials(declared)
        self._credentials = _CREDENTIALS | headers
        self._credential_queries = frozenset(queries)
        self._personal = options.identity is not None
        """Whether the key names whose response it is."""
        if options.public:  # everyone who gets past the dependencies before the cache
            before = {id(each) for every in declarations for each in _before(every, cache)}
            declared = [each for each in declared if id(each) not in before]
        read = declared_headers(declared) - (set() if self._personal else self._credentials)
        self._told_apart = tuple(sorted({*options.vary, *read}))
        without = () if options.public else {"authorization", "cookie", *headers}
        self._vary = tuple(sorted({*self._told_apart, *without}))
        """The header fields that clients are told of."""
        self._agreed = self._told_apart if self._personal else self._vary
        """The header fields that requests with one key agree in, or have not."""
        self._of_tenant = not self._personal and _asks_for_whom(declared, app)
        """Whether the route asks for whom a request is, which the key does not tell."""
        self._tags = (
            RouteTags(options.tags, running.route.endpoint, declarations[0], options.query) if options.tags else None
        )
        self.loads_again = bool(options.rules.stale_for) or options.load["refresh_at"] is not None
        """Whether a load may find an entry of an earlier one."""
        self._policies: dict[float, LoadPolicy] = {}

    def look(self, request: Request) -> Asked | str:
        """Return the request, or why the cache has no part in it, in the words of Cache-Status."""
        scope = request.scope
        if scope["method"] not in self._methods:
            return "fwd=method"
        headers = request_headers(scope)
        names = headers.keys()
        if not _PARTIAL.isdisjoint(names):
            return "fwd=bypass; detail=partial"
        if "transfer-encoding" in names or headers.get("content-length", "0") != "0":
            return "fwd=bypass; detail=body"
        if not self._personal and not self._options.public:
            if not self._credentials.isdisjoint(names) or getattr(scope.get("user"), "is_authenticated", False):
                return "fwd=bypass; detail=credentials"
            if self._credential_queries and not self._credential_queries.isdisjoint(request.query_params):
                return "fwd=bypass; detail=credentials"
        if self._of_tenant:
            return "fwd=bypass; detail=tenant"
        query = query_text(scope["query_string"], self._options.query)
        try:
            tags = () if self._tags is None else self._tags.of(request)
        except CacheKeyError:  # a parameter that is too long for a tag, or that the route refuses
            return "fwd=bypass; detail=tags"
        return Asked(headers, query, tags)

    def key(self, scope: Mapping[str, Any], asked: Asked, identity: str | None) -> str:
        """Return the key of a request."""
        return key_of(scope, asked.headers, asked.query, self._told_apart, identity)

    def judge(self, captured: Captured, default_ttl: float) -> StoredResponse:
        """Return what of a response may be kept.

        :param default_ttl: that of the cache.
        """
        ttl = self._options.seconds(default_ttl)
        return stored_of(
            captured, self._agreed, self._vary, self._options.rules, ttl=ttl, most_bytes=self._options.max_bytes,
            personal=self._personal,
        )  # fmt: skip

    def policy(self, default_ttl: float) -> LoadPolicy:
        """Return how responses are loaded; the response itself says how long it lives.

        :param default_ttl: that of the cache.
        """
        policy = self._policies.get(default_ttl)
        if policy is None:
            options = {**self._options.load, "ttl": StoredResponse.lifetime_of}
            policy = self._policies[default_ttl] = make_policy(default_ttl, options)
        return policy


def _asks_for_whom(declared: Iterable[Dependant], app: FastAPI) -> bool:
    """Return whether something asks for the user of a request, or for its tenant where there may be several."""
    calls = {each.call for each in declared}
    service = getattr(app.state, "agent_service", None)
    single = service is not None and service.tenant is single_tenant and tenant_of not in app.dependency_overrides
    return user_of in calls or (tenant_of in calls and not single)


def _before(declaration: Dependant, cache: object) -> Iterator[Dependant]:
    """Yield what runs before the cache; nothing where it is not among the dependencies of the route itself."""
    calls = [each.call for each in declaration.dependencies]
    for each in declaration.dependencies[: calls.index(cache) if cache in calls else 0]:
        yield from walk(each)
