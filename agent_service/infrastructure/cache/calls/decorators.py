"""``@cached`` and ``@cache_invalidate``: caching declared where a function is defined."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MethodType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from agent_service.core.arguments import Template
from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.core.keys import normalise_namespace
from agent_service.core.ttl import TTL
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.calls.cached_function import CachedCalls, CacheInfo
from agent_service.infrastructure.cache.calls.keys import CallTags, KeySpec, every_context
from agent_service.infrastructure.cache.calls.methods import (
    BoundCall,
    CachedClassMethod,
    CachedMethod,
    is_defined_in_class,
)
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.loads.context import CallContext
from agent_service.infrastructure.cache.loads.policy import OPTIONS, make_policy

__all__ = ["CachedFunction", "cache_invalidate", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class CachedFunction(Protocol[P, R_co]):
    """What ``@cached`` makes of an ``async def`` function: called like it, with five things more.

    On a method they belong to the instance or class through which they are reached: ``service.get.invalidate(1)``, or
    ``Service.get.invalidate(service, 1)``.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the cached result, or call the function and cache what it returns."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call within its namespace."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the entry of a call. True when there was one."""
        ...

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function whatever is cached, cache its result and return it."""
        ...

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of this function in this process, of all instances where it is a method."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> "CachedFunction[P, R_co]": ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], R_co]", instance: S, owner: type | None = None, /
    ) -> "CachedFunction[Q, R_co]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> "CachedFunction[P, R_co]": ...


class CachedTypeFunction(CachedFunction[..., R_co], Protocol[Q, R_co]):
    """A :class:`CachedFunction` whose first parameter is a class; in a class body, a classmethod. For type checkers."""

    @overload  # type: ignore[override] # a classmethod is bound to its class however it is reached
    def __get__(self, instance: None, owner: type, /) -> "CachedFunction[Q, R_co]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> "CachedFunction[Q, R_co]": ...


class Decorator(Protocol):
    """What ``cached(...)`` returns."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[type[Any], Q], Coroutine[Any, Any, R]], /
    ) -> CachedTypeFunction[Q, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: "classmethod[Any, Q, Coroutine[Any, Any, R]]", /) -> CachedTypeFunction[Q, R]: ...
    @overload
    def __call__(self, function: "staticmethod[P, Coroutine[Any, Any, R]]", /) -> CachedFunction[P, R]: ...


def cached(
    ttl: TTL | Callable[[Any], TTL | None] | None = None,
    key_prefix: str = "",
    namespace: str = "",
    include_args: bool = True,
    cache_none: bool = False,
    *,
    key: str | Callable[..., str] | None = None,
    ignore: Iterable[str | contextvars.ContextVar[Any]] = (),
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    stale_for: TTL = 0,
    soft_timeout: float | None = None,
    hard_timeout: float | None = None,
    refresh_at: float | None = None,
    failure_backoff: float = 0,
    negative_ttl: TTL | None = None,
    cache_if: Callable[[Any], bool] | None = None,
    cache_exceptions: Mapping[type[Exception], TTL] | None = None,
    jitter: float = 0,
    condition: Callable[..., bool] | None = None,
    context: Iterable[contextvars.ContextVar[Any]] = (),
    lock: str | None = None,
    cache: BaseCache[Any] | None = None,
) -> Decorator:
    """Cache the results of an ``async def`` function, under ``{key_prefix}:{function name}:{arguments}``.

    ::

        @cached(ttl=300, key_prefix="users")
        async def get_user(user_id: str) -> User: ...

    The function runs once for all callers who ask for the same arguments at the same time. What it raises passes
    through and is not cached; an outage of the cache never breaks a call. A function with a return annotation gives
    that type back, whether it was called or its result was cached; each caller gets a value of its own.

    Arguments are told apart by type and value after binding: ``f(1)``, ``f(a=1)`` and a default of 1 are one call,
    ``f("1")`` and ``f(True)`` are others.

    :param ttl: seconds, a timedelta or ``NEVER``, or a function of the result that gives one; None is
        CACHE_DEFAULT_TTL; zero or less caches nothing.
    :param key_prefix: first part of the key; makes ``@cache_invalidate("users:get_user:*")`` possible.
    :param namespace: the namespace of :func:`get_cache`.
    :param include_args: False: one entry, whatever the arguments.
    :param cache_none: whether a result of None is cached.
    :param key: in place of the digest of all arguments: a template such as ``"{user_id}"``, or a function of the
        arguments.
    :param ignore: names of parameters that do not tell calls apart, such as a database session, and variables of
        ``context`` that do not, such as the id of a request.
    :param tags: templates such as ``"user:{user_id}"``, or a function of the result and the arguments; every entry that
        has a tag goes when the tag is invalidated.
    :param condition: a function of the arguments; a call for which it is false passes the cache by.
    :param context: context variables the function may see when it runs on a miss; it sees no others. Their values are
        part of the key, as those of arguments are, so a result is shared with callers who carry the same ones. A key
        made by ``key`` is followed by ``:`` and a digest of them.
    :param lock: "distributed": on a miss the function runs in one process only and the others wait for its result.
    :param cache: a cache to use in place of ``get_cache(namespace)``.

    The other parameters mean what they mean to ``get_or_load``: ``stale_for``, ``soft_timeout``, ``hard_timeout``,
    ``refresh_at``, ``failure_backoff``, ``negative_ttl``, ``cache_if``, ``cache_exceptions`` and ``jitter``.

    :raises TypeError: when the function is not ``async def``.
    :raises CacheKeyError: for unusable parameters now; when called, for an argument without a stable identity, by name.
    :raises CacheValueError: for an unusable option.
    :raises LoadTimeoutError: when called, after ``hard_timeout``, where there is no stale value to give.
    """
    given = locals()
    if callable(ttl) and inspect.iscoroutinefunction(ttl):
        raise TypeError("write @cached() with parentheses")
    if condition is not None and not callable(condition):
        raise CacheValueError(f"condition must be a function of the arguments, not {type(condition).__name__}")
    options = {each: given[each] for each in OPTIONS if each != "tags"} | {"context": tuple(context)}
    policy = make_policy(0.0, options)  # so that a mistake is told where it was made
    name = normalise_namespace(namespace)
    ignored = ignore if isinstance(ignore, str) else tuple(ignore)
    spec = KeySpec(
        prefix=key_prefix,
        include_args=include_args,
        key=key,
        ignore=ignored
        if isinstance(ignored, str)
        else [each for each in ignored if not isinstance(each, contextvars.ContextVar)],
        context=CallContext(policy.context, [each for each in ignored if isinstance(each, contextvars.ContextVar)]),
    )
    tagging = tags if callable(tags) or isinstance(tags, str) else tuple(tags)

    def decorate_function(function: Callable[..., Coroutine[Any, Any, R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        _require_async(function, "cached")
        calls = CachedCalls(
            function,
            spec,
            namespace=name,
            options=options,
            tags=CallTags(tagging, function),
            condition=condition,
            cache=cache,
        )
        return calls.wrapper()

    def decorate(function: Any) -> Any:
        match function:
            case classmethod():
                return CachedClassMethod(decorate_function(function.__func__))
            case staticmethod():
                return staticmethod(decorate_function(function.__func__))
            case MethodType():
                return BoundCall(decorate_function(function.__func__), function.__self__)
        decorated = decorate_function(function)
        return CachedMethod(decorated) if is_defined_in_class(function) else decorated

    return decorate


def cache_invalidate(
    key_pattern: str = "",
    namespace: str = "",
    *,
    keys: Iterable[str] = (),
    tags: Iterable[str] = (),
    cache: BaseCache[Any] | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Invalidate entries after an ``async def`` function has returned; when it raises, nothing is invalidated.

    ::

        @cache_invalidate("users:get_user:*")
        async def update_user(user_id: str, data: dict) -> None: ...

    Once the function has returned, its caller cannot cancel the invalidation any more; during an outage it is written
    down and replayed before Redis serves again.

    :param key_pattern: a Redis glob over the keys of the namespace; ``{user_id}`` is filled in from the call and
        matches itself only, both as it is and as ``@cached(key=...)`` writes it. Empty: none.
    :param namespace: the namespace of :func:`get_cache`.
    :param keys: keys, filled in likewise; cheaper than a pattern, which looks at every key there is. Of a function with
        ``context=``, known in this process, those for all values of its variables, at the cost of a pattern.
    :param tags: tags, filled in as they are; cheaper still where many entries are meant.
    :param cache: a cache to use in place of ``get_cache(namespace)``.
    :raises TypeError: when the function is not ``async def``.
    :raises CacheKeyError: for a template that names no parameter of the function.
    """
    name = normalise_namespace(namespace)
    if isinstance(keys, str):
        raise CacheKeyError(f"keys must be several templates, not one str; write keys=[{keys!r}]")
    templates = tuple(keys)
    tagging = tags if isinstance(tags, str) else tuple(tags)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if isinstance(function, CachedMethod):
            function = function.__func__
        _require_async(function, "cache_invalidate")
        pattern = Template(key_pattern, function) if key_pattern else None
        exact = [Template(each, function) for each in templates]
        tagged = CallTags(tagging, function)
        pending: set[asyncio.Task[None]] = set()

        async def invalidate(*args: Any, **kwargs: Any) -> None:
            used = await open_cache(name) if cache is None else cache
            patterns = [] if pattern is None else [*pattern.as_patterns(args, kwargs)]
            if exact:
                found = [key for each in exact for key in each.as_keys(args, kwargs)]
                await used.delete_many(found)
                patterns += [glob for key in found if (glob := every_context(key)) is not None]
            for each in patterns:
                await used.delete_pattern(each)
            if tagged:
                await used.invalidate_tags(tagged.of_call(args, kwargs))

        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            result = await function(*args, **kwargs)
            if pattern is not None or exact or tagged:
                task = asyncio.get_running_loop().create_task(invalidate(*args, **kwargs))
                pending.add(task)
                task.add_done_callback(pending.discard)
                await asyncio.shield(task)
            return result

        vars(wrapper)["__signature__"] = inspect.signature(function).replace()  # its own, told from a copied one
        return wrapper

    return decorate


def _require_async(function: object, decorator: str) -> None:
    if isinstance(function, classmethod | staticmethod):
        raise TypeError(f"put @{decorator} below @{type(function).__name__}, next to the function")
    if isinstance(function, functools.partial | functools.partialmethod):
        raise TypeError(
            f"@{decorator} needs a function with a name of its own, for its keys; write an 'async def' function that "
            f"calls the partial of {getattr(function.func, '__qualname__', type(function.func).__name__)}"
        )
    if not inspect.iscoroutinefunction(function):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"@{decorator} needs an 'async def' function; {name} is not one, make it async or call it in one"
        )
