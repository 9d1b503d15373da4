"""How values are loaded and kept: the options of ``get_or_load`` and ``@cached``, checked once."""

import contextvars
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, get_type_hints

from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.core.keys import check_key
from agent_service.core.ttl import TTL, resolve_ttl
from agent_service.infrastructure.cache.interface import LoadOptions
from agent_service.infrastructure.cache.values import Encoded, Lifetime

__all__ = ["LoadPolicy", "check_tags", "make_policy"]

TtlOption: TypeAlias = TTL | Callable[[Any], TTL | None] | None


class LoadPolicy(NamedTuple):
    """The options, checked. Every duration is in seconds; infinity: no end."""

    default_ttl: float
    ttl: float | Callable[[Any], TTL | None]
    tags_of: Callable[[Any], Iterable[str]] | None
    cache_none: bool
    negative_ttl: float | None
    cache_if: Callable[[Any], bool] | None
    exceptions: Mapping[type[Exception], float]
    stale_for: float
    soft_timeout: float | None
    hard_timeout: float | None
    refresh_at: float | None
    failure_backoff: float
    jitter: float
    exclusive: bool
    strict: bool
    context: tuple[contextvars.ContextVar[Any], ...]
    life: Lifetime | None = None
    """How long a result other than None is kept, where :meth:`known_life` was asked beforehand."""
    annotated: bool = False
    """Whether results are read with an annotation that names their classes."""
    rebuilds: bool = True
    """Whether that annotation may change results that hold no instance of a class."""
    come_back: Callable[[Encoded], bool] | None = None
    """Whether a result will come back as it is to readers with an annotation; None: readers have none."""
    seen: str = ""
    """A digest of what the load sees of its context, where the key does not tell; empty: it does, or there is none."""

    def life_of(self, result: Any) -> Lifetime | None:
        """Return how long a result is kept; None: not at all."""
        if result is None and self.negative_ttl is not None:
            return self._life(self.negative_ttl)
        if (result is None and not self.cache_none) or (self.cache_if is not None and not self.cache_if(result)):
            return None
        seconds = self.ttl
        if callable(seconds):
            seconds = resolve_ttl(seconds(result), self.default_ttl)
        return self._life(seconds)

    def known_life(self) -> Lifetime | None:
        """Return how long every result other than None is kept; None: that depends on the result, or on chance."""
        return None if callable(self.ttl) or self.jitter or self.cache_if is not None else self._life(self.ttl)

    def life_of_exception(self, exc: Exception) -> Lifetime | None:
        """Return how long an exception is kept in place of a result; None: not at all, as one of a subclass."""
        seconds = self.exceptions.get(type(exc))
        return None if seconds is None else self._life(seconds)._replace(stale_for=0.0, refresh_at=None)

    def _life(self, seconds: float) -> Lifetime:
        if self.jitter and seconds != math.inf:
            seconds *= 1 - self.jitter * random.random()  # noqa: S311 - spreads expiry, no secret
        return Lifetime(seconds, self.stale_for, self.refresh_at)


def make_policy(
    default_ttl: float,
    ttl: TtlOption = None,
    *,
    tags: Iterable[str] | Callable[[Any], Iterable[str]] = (),
    cache_none: bool = True,
    negative_ttl: TTL | None = None,
    cache_if: Callable[[Any], bool] | None = None,
    cache_exceptions: Mapping[type[Exception], TTL] | None = None,
    stale_for: TTL = 0,
    soft_timeout: float | None = None,
    hard_timeout: float | None = None,
    refresh_at: float | None = None,
    failure_backoff: float = 0,
    jitter: float = 0,
    lock: str | None = None,
    strict: bool = True,
    context: Iterable[contextvars.ContextVar[Any]] = (),
    **unknown: object,
) -> LoadPolicy:
    """Check the options; ``LoadOptions`` says what they mean. Tags that are no function are for the caller to check.

    :raises CacheValueError: naming the option that cannot be used.
    """
    if unknown:
        raise CacheValueError(f"unknown option {min(unknown)!r}; the options are {', '.join(_OPTIONS)}")
    if lock is not None and lock != "distributed":
        raise CacheValueError(f'lock must be None or "distributed", got {lock!r:.80}')
    if refresh_at is not None and not (_is_number(refresh_at) and 0 < refresh_at < 1):
        raise CacheValueError(f"refresh_at must be a fraction of the TTL between 0 and 1, got {refresh_at!r:.80}")
    if not (_is_number(jitter) and 0 <= jitter < 1):
        raise CacheValueError(f"jitter must be a fraction of the TTL from 0 to below 1, got {jitter!r:.80}")
    if cache_if is not None and not callable(cache_if):
        raise CacheValueError(f"cache_if must be a function of the result, not {type(cache_if).__name__}")
    return LoadPolicy(
        default_ttl=default_ttl,
        ttl=ttl if callable(ttl) else resolve_ttl(ttl, default_ttl),
        tags_of=tags if callable(tags) else None,
        cache_none=cache_none,
        negative_ttl=None if negative_ttl is None else resolve_ttl(negative_ttl, 0, name="negative_ttl"),
        cache_if=cache_if,
        exceptions=_exceptions(cache_exceptions) if cache_exceptions else {},
        stale_for=_seconds("stale_for", stale_for) or 0.0,
        soft_timeout=_seconds("soft_timeout", soft_timeout),
        hard_timeout=_seconds("hard_timeout", hard_timeout),
        refresh_at=refresh_at,
        failure_backoff=_seconds("failure_backoff", failure_backoff) or 0.0,
        jitter=jitter,
        exclusive=lock is not None,
        strict=strict,
        context=_variables(context) if context else (),
    )


_OPTIONS = sorted(get_type_hints(LoadOptions))


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags, each once.

    :raises CacheKeyError: for one str in place of several, and for tags that :func:`check_key` refuses.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise CacheKeyError(f"tags must be several tags, got {type(tags).__name__}: {tags!r:.80}; put it in a list")
    return tuple(dict.fromkeys([check_key(tag, name="tag") for tag in tags]))


def _seconds(name: str, given: TTL | None) -> float | None:
    if given is None or (given == 0 and not isinstance(given, bool)):  # the usual case, for little
        return None if given is None else 0.0
    seconds = resolve_ttl(given, 0.0, name=name)
    if seconds < 0:
        raise CacheValueError(f"{name} must not be negative, got {given!r:.80}")
    return seconds


def _variables(context: Iterable[contextvars.ContextVar[Any]]) -> tuple[contextvars.ContextVar[Any], ...]:
    variables = tuple(context) if isinstance(context, Iterable) else (context,)
    for each in variables:
        if not isinstance(each, contextvars.ContextVar):
            raise CacheValueError(f"context must be several ContextVars, got {type(each).__name__}: {each!r:.80}")
    return variables


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exceptions(chosen: Mapping[type[Exception], TTL]) -> dict[type[Exception], float]:
    if not isinstance(chosen, Mapping):
        raise CacheValueError(
            f"cache_exceptions must map exception classes to seconds, not {type(chosen).__name__}; "
            "write {NotFound: 30}"
        )
    checked: dict[type[Exception], float] = {}
    for kind, ttl in chosen.items():
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise CacheValueError(f"cache_exceptions must have exception classes as keys, got {kind!r:.80}")
        checked[kind] = resolve_ttl(ttl, 0.0, name=f"cache_exceptions[{kind.__qualname__}]")
    return checked
