"""``cache_response``: the cache of a route, declared among its dependencies."""

from collections.abc import Iterable
from typing import Any, Final

from agent_service.core.ttl import TTL
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.integrations.fastapi.responses.cache import ResponseCache
from agent_service.integrations.fastapi.responses.options import Identify, checked_options

__all__ = ["NAMESPACE", "cache_response"]

NAMESPACE: Final = "responses"
"""The namespace of the cache in which responses are kept, unless another one is named."""


def cache_response(
    ttl: TTL | None = None,
    *,
    tags: Iterable[str] = (),
    vary: Iterable[str] = (),
    query: Iterable[str] | None = None,
    identity: Identify | None = None,
    public: bool = False,
    max_age: TTL | None = None,
    s_maxage: TTL | None = None,
    client_reload: bool = False,
    max_bytes: int = 1 << 20,
    namespace: str = NAMESPACE,
    cache: BaseCache[Any] | None = None,
    stale_for: TTL = 0,
    soft_timeout: float | None = None,
    hard_timeout: float | None = None,
    refresh_at: float | None = None,
    failure_backoff: float = 0,
    jitter: float = 0,
    lock: str | None = None,
) -> ResponseCache:
    """Return the dependency that caches the responses of a route to GET and HEAD.

    ::

        router = APIRouter(route_class=CachedRoute)

        @router.get("/items/{item_id}", dependencies=[Depends(cache_response(60, tags=["item:{item_id}"]))])
        async def read_item(item_id: int) -> Item: ...

    The dependencies that are declared before it run for every request, hit or miss. The rest of the route runs for a
    load only: once for all who ask at the same time, with the request of the first of them. In a load all dependencies
    run.

    Requests with Authorization, cookies or the credentials of a security scheme of the route pass the cache by, and so
    do those of a route for a ``Tenant`` or ``User``, unless ``identity`` or ``public`` says what to do with them.
    Header fields that the route declares as parameters tell requests apart, like those of ``vary``. Never kept are
    responses that set cookies, stream, are ``private`` or ``no-store``, or vary by what ``vary`` does not name; and
    errors, unless the route gives them a Cache-Control.

    :param ttl: how long a response is fresh here, where its own Cache-Control or Expires says nothing; None is
        CACHE_DEFAULT_TTL.
    :param tags: templates over path and query parameters of the endpoint. ``@cache_invalidate(tags=[...],
        namespace=NAMESPACE)`` on the endpoint that changes the item invalidates every response that has the tag.
    :param vary: header fields that responses depend on, as in Vary.
    :param query: the query parameters that responses depend on; the load sees no others, and their order does not
        matter. None: the query string counts as it was sent.
    :param identity: a function of the request that returns for whom the response is, a text; it may be asynchronous,
        and is called for every request. Each of them has responses of their own, which clients are told are
        ``private``.
    :param public: the response is the same for everyone who gets past the dependencies before the cache, whatever
        credentials the request has; clients are told that it is ``public``.
    :param max_age: what clients are told, in place of how long the response is fresh here. A client does not learn of
        invalidations: 0 lets it ask each time, and get a 304.
    :param s_maxage: what shared caches on the way are told; None: nothing beside ``max_age``.
    :param client_reload: whether clients may force a load by ``Cache-Control: no-cache``, ``max-age``, ``min-fresh`` or
        ``no-store``. ``only-if-cached`` always counts.
    :param max_bytes: larger bodies are not stored.
    :param namespace: the namespace of :func:`get_cache`.
    :param cache: a cache to use in place of ``get_cache(namespace)``.

    The other parameters mean what they mean to ``get_or_load``; a server error counts as a failed load.

    :raises CacheValueError: for a duration or an option of the load that cannot be used.
    :raises CacheKeyError: for names that cannot be used.
    :raises ConfigurationError: for options that contradict each other.
    """
    return ResponseCache(
        checked_options(
            ttl=ttl, tags=tags, vary=vary, query=query, identity=identity, public=public, max_age=max_age,
            s_maxage=s_maxage, client_reload=client_reload, max_bytes=max_bytes, namespace=namespace, cache=cache,
            load={
                "stale_for": stale_for, "soft_timeout": soft_timeout, "hard_timeout": hard_timeout,
                "refresh_at": refresh_at, "failure_backoff": failure_backoff, "jitter": jitter,
                "lock": lock,
            },
        )
    )  # fmt: skip
