"""What one cache does with the requests of one route: found out once, from the options and the route's declaration."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.loads.policy import LoadPolicy, make_policy
from agent_service.integrations.fastapi.responses.capture import Captured
from agent_service.integrations.fastapi.responses.declared import declared_credentials, declared_headers, walk
from agent_service.integrations.fastapi.responses.keys import key_of, query_text, request_headers
from agent_service.integrations.fastapi.responses.options import ResponseOptions
from agent_service.integrations.fastapi.responses.running import RunningRoute
from agent_service.integrations.fastapi.responses.stored import StoredResponse
from agent_service.integrations.fastapi.responses.storing import stored_of
from agent_service.integrations.fastapi.responses.tags import RouteTags

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

    :param cache: the dependency that is the cache; what the route declares before it runs for every request.
    """

    def __init__(self, options: ResponseOptions, running: RunningRoute, cache: object) -> None:
        self._options = options
        self._methods = running.methods
        declared = list(walk(running.dependant))
        headers, queries = declared_credentials(declared)
        self._credentials = _CREDENTIALS | headers
        self._credential_queries = frozenset(queries)
        self._personal = options.identity is not None
        """Whether the key names whose response it is."""
        places = [place for place, each in enumerate(running.dependant.dependencies) if each.call is cache]
        if options.public and places:  # everyone who gets past the dependencies before the cache
            before = {id(each) for every in running.dependant.dependencies[: places[0]] for each in walk(every)}
            declared = [each for each in declared if id(each) not in before]
        read = declared_headers(declared) - (set() if self._personal else self._credentials)
        self._told_apart = tuple(sorted({*options.vary, *read}))
        told_to_clients = () if options.public else {"authorization", "cookie", *headers}
        self._vary = tuple(sorted({*self._told_apart, *told_to_clients}))
        """The header fields that requests with one key agree in, or have not."""
        self._tags = RouteTags(options.tags, running.endpoint, running.dependant) if options.tags else None
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
        query = query_text(scope["query_string"], self._options.query)
        try:
            tags = () if self._tags is None else self._tags.of(request)
        except CacheKeyError:  # a parameter that is too long for a tag
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
            captured, self._vary, self._options.rules, ttl=ttl, most_bytes=self._options.max_bytes,
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
