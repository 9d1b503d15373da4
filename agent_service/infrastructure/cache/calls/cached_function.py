"""The calls of one decorated function: their way to the cache, and their counts.

The compiled wrapper (``compiled.py``) answers what it finds in memory. Every other call takes four steps:

1. the cache: the one that was used last, unless the event loop, the settings or the Redis manager changed;
2. its name, looked up or made (``keys.py``);
3. one read;
4. only where that found no fresh value, the loads (``loads/loading.py``).

What was read or loaded is then turned into what the return annotation promises. A value that does not fit, because
another version of the function stored it, counts as a miss and is loaded again.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from agent_service.core.errors import UndecodableError
from agent_service.core.returned import Returned
from agent_service.core.settings import get_settings
from agent_service.core.values.stored import Stored
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.calls.compiled import HotPath, compile_wrapper
from agent_service.infrastructure.cache.calls.keys import CallName, CallNames, CallTags, KeySpec
from agent_service.infrastructure.cache.factory import Opened, opened
from agent_service.infrastructure.cache.loads.loading import Obtained
from agent_service.infrastructure.cache.loads.policy import LoadPolicy, make_policy
from agent_service.infrastructure.cache.values import Encoded

__all__ = ["OPERATIONS", "CacheInfo", "CachedCalls"]

logger = logging.getLogger("agent_service.cache")

OPERATIONS: Final = ("cache_key", "invalidate", "refresh", "cache_info")
"""What a decorated function offers beside being called."""

R = TypeVar("R")


class CacheInfo(NamedTuple):
    """What became of the calls of a decorated function in this process."""

    hits: int
    misses: int


class CachedCalls(Generic[R]):
    """One decorated function."""

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, R]],
        spec: KeySpec,
        *,
        namespace: str,
        options: Mapping[str, Any],
        tags: CallTags,
        condition: Callable[..., bool] | None,
        cache: BaseCache[Any] | None,
    ) -> None:
        self._function = function
        self._namespace = namespace
        self._options = options
        self._policies: dict[float, LoadPolicy] = {}
        self._tags = tags
        self._condition = condition
        self._cache = cache
        self._opened: Opened | None = None
        """The cache of the settings, when it was last used."""
        self._returned = Returned(function)
        self._names = CallNames(function, spec, tags, namespace)
        self._path = HotPath(looks_at_tags=bool(tags))
        self._hits = 0
        self._misses = 0
        self._warned = False
        self.cache_key = self._names.key

    def wrapper(self) -> Callable[..., Coroutine[Any, Any, R]]:
        """Return the function that replaces the decorated one."""
        compiled = None
        if self._names.can_remember and self._condition is None:
            compiled = compile_wrapper(
                self._names.signature,
                self._names.parameters,
                self._names.context,
                self._call,
                self._returned if self._returned.rebuilds else None,
                path=self._path,
            )
        if compiled is None:

            async def compiled(*args: Any, **kwargs: Any) -> R:
                return await self._call(None, *args, **kwargs)

        wrapper = functools.wraps(self._function)(compiled)
        vars(wrapper).update(
            {each: getattr(self, each) for each in OPERATIONS},
            __signature__=inspect.signature(self._function).replace(),
        )
        return wrapper

    def cache_info(self) -> CacheInfo:
        """Return hits and misses."""
        return CacheInfo(self._hits + self._path.hits(), self._misses)

    async def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Remove the entry of a call."""
        cache = await self._open()
        return await cache.delete(self.cache_key(*args, **kwargs))

    async def refresh(self, *args: Any, **kwargs: Any) -> R:
        """Call the function and cache its result."""
        cache = await self._open()
        return await self._load(cache, self._names.make(args, kwargs), args, kwargs)

    async def _open(self) -> BaseCache[Any]:
        """Return the cache: the one that was given, else that of the settings, the event loop and the Redis of now."""
        if self._cache is not None:
            return self._cache
        known = self._opened  # once: another thread's event loop may replace it
        if (
            known is None
            or known.loop is not asyncio.get_running_loop()
            or known.settings is not get_settings()
            or not known.manager.is_open
        ):
            known = self._opened = await opened(self._namespace)
        return known.cache

    def _policy(self, cache: BaseCache[Any]) -> LoadPolicy:
        """Return the options over the default TTL of the cache that is used."""
        policy = self._policies.get(cache.default_ttl)
        if policy is None:
            policy = make_policy(cache.default_ttl, self._options)
            policy = policy._replace(strict=False, life=policy.known_life())
            if self._returned.names_classes:
                policy = policy._replace(annotated=True, rebuilds=self._returned.rebuilds, come_back=self._comes_back)
            self._policies[cache.default_ttl] = policy
        return policy

    def _tagging(self, policy: LoadPolicy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoadPolicy:
        """Return the policy of one call's load, whose result decides its tags."""
        tags_of = self._tags.of_result
        return policy if tags_of is None else policy._replace(tags=lambda result: tags_of(result, *args, **kwargs))

    async def _call(self, identity: tuple[object, ...] | None, /, *args: Any, **kwargs: Any) -> R:
        """Answer a call that the compiled wrapper did not.

        :param identity: the types and values, in turn, of what tells calls apart, whatever they are; None: not known.
        """
        if self._condition is not None and not self._condition(*args, **kwargs):
            return await self._function(*args, **kwargs)
        cache = await self._open()
        policy = self._policies.get(cache.default_ttl) or self._policy(cache)
        try:
            name = self._names.known.get(identity)
        except TypeError:  # an argument that cannot be hashed
            name = None
        if name is None:
            name = self._names.make(args, kwargs, identity)
        ended = cache.leases.ended
        found = await cache.backend.read(name.key, name.tags)
        if found is not None and found.left > 0 and not found.raised and policy.refresh_at is None:
            obtained = Obtained(found.value, found.level, found.age, None)  # what the loads would say, without a visit
        else:
            function = functools.partial(self._function, *args, **kwargs)
            if self._tags.of_result is not None:
                policy = self._tagging(policy, args, kwargs)
            obtained = await cache.loading.answer(name.key, function, policy, name.tags, found=found, ended=ended)
        served = obtained.encoded is None
        try:
            result = self._given(obtained)
        except Exception:  # noqa: BLE001 - an entry of another version of the type counts as undecodable
            cache.counters.undecodable += 1
            cache.loading.withdraw(obtained)
            served = False
            result = await self._load(cache, name, args, kwargs)
        if served:
            self._hits += 1
        else:
            self._misses += 1
        # The short way without an annotation to rebuild knows nothing of classes.
        if name.identity is not None and (self._returned.rebuilds or type(obtained.value) is not Stored):
            hot = cache.backend.hot_table
            if hot is not None:
                self._path.remember(name.identity, name.key, *hot)
        return result

    async def _load(self, cache: BaseCache[Any], name: CallName, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        function = functools.partial(self._function, *args, **kwargs)
        policy = self._tagging(self._policy(cache), args, kwargs)
        obtained = await cache.loading.load(name.key, function, policy, name.tags, fresh=True)
        try:
            return self._given(obtained)
        except Exception as exc:  # noqa: BLE001 - it was loaded for a function that promises another type
            assert obtained.encoded is not None
            self._warn(obtained.encoded.value, _misfit(exc))
            return cast("R", obtained.encoded.value)

    def _given(self, obtained: Obtained) -> R:
        """Return a result as its annotation promises it; one that cannot be stored as it is.

        :raises Exception: for a result that another version of the function stored or loaded.
        """
        encoded = obtained.encoded
        if encoded is None or encoded.data is not None:
            value = obtained.value
            return cast("R", self._returned(value) if self._returned.rebuilds or type(value) is Stored else value)
        if encoded.refusal:
            self._warn(encoded.value, encoded.refusal)
        return cast("R", encoded.value)

    def _comes_back(self, encoded: Encoded) -> bool:
        """Whether a hit could give this result as its annotation promises it."""
        try:
            data = encoded.open()
            self._returned.require_kept(data, self._returned(data))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the entry would be a miss each time
            if self._returned.unresolved is None:
                self._warn(encoded.value, _misfit(exc))
            return False
        finally:
            if self._returned.unresolved is not None:
                self._warn_once(
                    "the return annotation of %s cannot be resolved, so results that hold instances of classes are not "
                    "cached: %s; define or import the name where the function's module can see it when it is called",
                    self._function.__qualname__,
                    self._returned.unresolved,
                )
        return True

    def _warn(self, value: object, reason: str) -> None:
        name, kind = self._function.__qualname__, type(value).__name__
        self._warn_once("a result of %s, a %s, is not cached: %s", name, kind, reason)

    def _warn_once(self, message: str, *args: object) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(message, *args)


def _misfit(exc: Exception) -> str:
    reason = str(exc) if isinstance(exc, UndecodableError) else type(exc).__name__
    return f"it would not come back as the return annotation says: {reason}"
