"""How values are loaded and kept: the options of ``get_or_load`` and ``@cached``, checked once."""

import contextvars
import math
import random
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_type_hints

from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.core.keys import check_key
from agent_service.core.ttl import TTL, resolve_ttl
from agent_service.infrastructure.cache.interface import LoadOptions
from agent_service.infrastructure.cache.values import Encoded, Lifetime

__all__ = ["OPTIONS", "LoadPolicy", "check_tags", "make_policy"]

_NO_EXCEPTIONS: Final[Mapping[type[Exception], float]] = MappingProxyType({})


class LoadPolicy(NamedTuple):
    """The options of ``LoadOptions``, checked, by the same names. Every duration is in seconds; infinity: no end."""

    default_ttl: float
    ttl: float | Callable[[Any], TTL | None]
    tags: Callable[[Any], Iterable[str]] | None = None
    """The function of the result. Tags that are no function are for the caller to check."""
    stale_for: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    refresh_at: float | None = None
    failure_backoff: float = 0.0
    negative_ttl: float | None = None
    cache_if: Callable[[Any], bool] | None = None
    cache_exceptions: Mapping[type[Exception], float] = _NO_EXCEPTIONS
    jitter: float = 0.0
    context: tuple[contextvars.ContextVar[Any], ...] = ()
    lock: str | None = None

    cache_none: bool = True
    """Of decorated functions only, as what follows."""
    strict: bool = True
    """Whether a result that cannot be written down is an error, and not just kept out of the cache."""
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
        seconds = self.cache_exceptions.get(type(exc))
        return None if seconds is None else Lifetime(self._life(seconds).seconds)

    def _life(self, seconds: float) -> Lifetime:
        if self.jitter and seconds != math.inf:
            seconds *= 1 - self.jitter * random.random()  # noqa: S311 - spreads expiry, no secret
        return Lifetime(seconds, self.stale_for, self.refresh_at)


def make_policy(default_ttl: float, options: Mapping[str, Any]) -> LoadPolicy:
    """Check the options that were given; ``LoadOptions`` says what they mean.

    :raises CacheValueError: naming the option that cannot be used.
    """
    checked: dict[str, Any] = {}
    for name, given in options.items():
        check = _CHECKS.get(name)
        if check is not None:
            checked[name] = check(name, given)
        elif name not in _UNCHECKED:
            unknown = min(options.keys() - set(OPTIONS))
            raise CacheValueError(f"unknown option {unknown!r}; the options are {', '.join(_OPTIONS)}")
    ttl = options.get("ttl")
    checked["ttl"] = ttl if callable(ttl) else resolve_ttl(ttl, default_ttl)
    return LoadPolicy(default_ttl, cache_none=options.get("cache_none", True), **checked)


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags, each once.

    :raises CacheKeyError: for one str in place of several, and for tags that :func:`check_key` refuses.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise CacheKeyError(f"tags must be several tags, got {type(tags).__name__}: {tags!r:.80}; put it in a list")
    return tuple(dict.fromkeys([check_key(tag, name="tag") for tag in tags]))


def _seconds(name: str, given: TTL | None) -> float:
    return 0.0 if given is None else _limit(name, given) or 0.0


def _limit(name: str, given: TTL | None) -> float | None:
    if given is None:
        return None
    seconds = resolve_ttl(given, 0.0, name=name)
    if seconds < 0:
        raise CacheValueError(f"{name} must not be negative, got {given!r:.80}")
    return seconds


def _ttl(name: str, given: TTL | None) -> float | None:
    return None if given is None else resolve_ttl(given, 0, name=name)


def _fraction(name: str, given: Any) -> float | None:
    if given is not None and not (_is_number(given) and 0 < given < 1):
        raise CacheValueError(f"{name} must be a fraction of the TTL between 0 and 1, got {given!r:.80}")
    fraction: float | None = given
    return fraction


def _fraction_from_zero(name: str, given: Any) -> float:
    if not (_is_number(given) and 0 <= given < 1):
        raise CacheValueError(f"{name} must be a fraction of the TTL from 0 to below 1, got {given!r:.80}")
    fraction: float = given
    return fraction


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lock(name: str, given: object) -> str | None:
    if given is not None and given != "distributed":
        raise CacheValueError(f'{name} must be None or "distributed", got {given!r:.80}')
    return None if given is None else "distributed"


def _function(name: str, given: Any) -> Any:
    if given is not None and not callable(given):
        raise CacheValueError(f"{name} must be a function of the result, not {type(given).__name__}")
    return given


def _function_or_nothing(_name: str, given: Any) -> Any:
    return given if callable(given) else None


def _variables(name: str, given: Any) -> tuple[contextvars.ContextVar[Any], ...]:
    variables = tuple(given) if isinstance(given, Iterable) else (given,) if given else ()
    for each in variables:
        if not isinstance(each, contextvars.ContextVar):
            raise CacheValueError(f"{name} must be several ContextVars, got {type(each).__name__}: {each!r:.80}")
    return variables


def _exceptions(name: str, chosen: Any) -> Mapping[type[Exception], float]:
    if not chosen:
        return _NO_EXCEPTIONS
    if not isinstance(chosen, Mapping):
        raise CacheValueError(
            f"{name} must map exception classes to seconds, not {type(chosen).__name__}; write {{NotFound: 30}}"
        )
    checked: dict[type[Exception], float] = {}
    for kind, ttl in chosen.items():
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise CacheValueError(f"{name} must have exception classes as keys, got {kind!r:.80}")
        checked[kind] = resolve_ttl(ttl, 0.0, name=f"{name}[{kind.__qualname__}]")
    return checked


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "tags": _function_or_nothing,
    "stale_for": _seconds,
    "soft_timeout": _limit,
    "hard_timeout": _limit,
    "refresh_at": _fraction,
    "failure_backoff": _seconds,
    "negative_ttl": _ttl,
    "cache_if": _function,
    "cache_exceptions": _exceptions,
    "jitter": _fraction_from_zero,
    "context": _variables,
    "lock": _lock,
}
_UNCHECKED: Final = ("ttl", "cache_none")
_OPTIONS: Final = sorted(get_type_hints(LoadOptions))
OPTIONS: Final = (*_UNCHECKED, *_CHECKS)
"""The names of what ``@cached`` and ``get_or_load`` are told about loads."""
