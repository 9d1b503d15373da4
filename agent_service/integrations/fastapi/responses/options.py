"""What a route says about the caching of its responses, checked once."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from agent_service.core.errors import CacheKeyError, CacheValueError, ConfigurationError
from agent_service.core.keys import normalise_namespace
from agent_service.core.ttl import TTL, resolve_ttl
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.loads.policy import check_tags, make_policy
from agent_service.integrations.fastapi.responses.storing import ClientRules

__all__ = ["Identify", "ResponseOptions", "checked_options"]

Identify = Callable[[Request], Any]


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """The parameters of :func:`cache_response`, checked, by the same names."""

    ttl: TTL | None
    tags: tuple[str, ...]
    vary: tuple[str, ...]
    query: frozenset[str] | None
    identity: Identify | None
    public: bool
    client_reload: bool
    max_bytes: int
    namespace: str
    cache: BaseCache[Any] | None
    load: Mapping[str, Any]
    """The options of the load."""
    rules: ClientRules

    def seconds(self, default: float) -> float:
        """Return the TTL in seconds.

        :param default: that of the cache.
        """
        return resolve_ttl(self.ttl, default)


def checked_options(
    *,
    ttl: TTL | None,
    tags: Iterable[str],
    vary: Iterable[str],
    query: Iterable[str] | None,
    identity: Identify | None,
    public: bool,
    max_age: TTL | None,
    s_maxage: TTL | None,
    client_reload: bool,
    max_bytes: int,
    namespace: str,
    cache: BaseCache[Any] | None,
    load: Mapping[str, Any],
) -> ResponseOptions:
    """Return the options, or say which one cannot be used.

    :raises CacheValueError: for a duration or bound that cannot be used.
    :raises CacheKeyError: for names that cannot be used.
    :raises ConfigurationError: for options that contradict each other.
    """
    if resolve_ttl(ttl, math.inf) <= 0:
        raise CacheValueError(f"ttl must be more than 0 seconds, got {ttl!r:.80}; leave the cache out in place of that")
    if public and identity is not None:
        raise ConfigurationError(
            "public=True says that a response is for everyone, identity= that it is not; choose one"
        )
    if identity is not None and not callable(identity):
        raise ConfigurationError(f"identity must be a function of the request, not {type(identity).__name__}")
    if identity is not None and s_maxage is not None:
        raise ConfigurationError("s_maxage is for shared caches, which may not keep what identity= makes private")
    if type(max_bytes) is not int or max_bytes < 1:
        raise CacheValueError(f"max_bytes must be an int of at least 1, got {max_bytes!r:.80}")
    policy = make_policy(0.0, {**load, "ttl": 1})
    fields = tuple(sorted({each.lower() for each in _names("vary", vary)}))
    if "*" in fields:
        raise ConfigurationError('vary=["*"] allows no response to be stored; leave the cache out')
    rules = ClientRules(
        "public" if public else "private" if identity is not None else "",
        None if max_age is None else resolve_ttl(max_age, 0.0, name="max_age"),
        None if s_maxage is None else resolve_ttl(s_maxage, 0.0, name="s_maxage"),
        policy.stale_for,
        revalidates=policy.soft_timeout is not None,
    )
    return ResponseOptions(
        ttl, check_tags(tags), fields, None if query is None else frozenset(_names("query", query)), identity, public,
        client_reload, max_bytes, normalise_namespace(namespace), cache, load, rules,
    )  # fmt: skip


def _names(name: str, given: Iterable[str]) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise CacheKeyError(
            f"{name} must be several names, got {type(given).__name__}: {given!r:.80}; put it in a list"
        )
    names = list(given)
    for each in names:
        if not isinstance(each, str) or not each:
            raise CacheKeyError(f"{name} must hold names, got {each!r:.80}")
    return names
