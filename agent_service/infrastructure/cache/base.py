"""What all caches share, whatever they are stored in: checking arguments, breaking leases, counting, loading."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, Unpack, overload

from typing_extensions import TypeVar

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import CacheValueError, UndecodableError
from agent_service.core.keys import check_key, check_keys, normalise_namespace
from agent_service.core.ttl import TTL, Never, resolve_ttl
from agent_service.core.values.stored import Stored, plain
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache, Loaded, LoadOptions, Lookup
from agent_service.infrastructure.cache.leases import LeaseBook
from agent_service.infrastructure.cache.loads.context import CallContext
from agent_service.infrastructure.cache.loads.loading import Loading
from agent_service.infrastructure.cache.loads.many import load_many
from agent_service.infrastructure.cache.loads.policy import check_tags, make_policy
from agent_service.infrastructure.cache.patterns import compiled
from agent_service.infrastructure.cache.table import HitCounter, MemoryStore
from agent_service.infrastructure.cache.values import CachedValue, Lifetime, check_amount

__all__ = ["BaseCache"]

T = TypeVar("T", default=Any)
D = TypeVar("D")
L = TypeVar("L")

_WILDCARDS = frozenset("*?[\\")


class BaseCache(ICache[T]):
    """The contract of :class:`ICache`, built on the few operations of a :class:`Backend`.

    :param namespace: "" is the default namespace.
    :param default_ttl: seconds for ``ttl=None``; infinity: no expiry.
    :param leases: shared by the handles of one namespace in this process; None: a book of its own.
    :param monotonic: seconds that never go back, for what is remembered beside the backend; None: the system's.
    """

    def __init__(
        self,
        backend: Backend,
        namespace: str,
        *,
        default_ttl: float,
        leases: LeaseBook | None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.backend = backend
        self.codec = backend.codec
        self.counters = backend.counters
        self.namespace = normalise_namespace(namespace)
        self.default_ttl = default_ttl
        self.leases = LeaseBook() if leases is None else leases
        self.loading = Loading(backend, self.leases, monotonic or SYSTEM_CLOCK.monotonic, namespace=self.namespace)
        self.flights = self.loading.flights

    @property
    def caught_up(self) -> bool:
        """Whether every invalidation so far has reached the cache that other processes share."""
        return True

    @property
    def hot_table(self) -> tuple[MemoryStore, HitCounter] | None:
        """See :attr:`Backend.hot_table`."""
        return self.backend.hot_table

    # -- reading

    @overload
    async def get(self, key: str) -> T | None: ...
    @overload
    async def get(self, key: str, default: D) -> T | D: ...
    async def get(self, key: str, default: object = None) -> object:
        found = await self.backend.read(check_key(key))
        return self._value(found, default)

    async def lookup(self, key: str) -> Lookup[T]:
        value = self._value(await self.backend.read(check_key(key)), MISS)
        return MISS if value is MISS else Hit(value)

    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        wanted = _check_keys(keys)
        found = await self.backend.read_many(wanted) if wanted else {}
        return self._values(found)

    def _values(self, found: Mapping[str, CachedValue]) -> dict[str, Any]:
        values = {key: self._value(each, MISS) for key, each in found.items()}
        return {key: value for key, value in values.items() if value is not MISS}

    def _value(self, found: CachedValue | None, default: Any) -> Any:
        """Return a fresh value, classes as plain data, which nobody named here. A cached exception is no value."""
        if found is None or found.left <= 0:
            return default
        value = MISS if found.raised else self._plain(found.value, MISS)
        if value is MISS:
            self.counters.retract_hit(found.level)
            return default
        return value

    def _plain(self, value: Any, default: Any) -> Any:
        """Return a decoded value as plain data. ``default`` is for damage."""
        if type(value) is not Stored:
            return value
        try:
            return plain(value)
        except UndecodableError:
            self.counters.undecodable += 1
            return default

    async def exists(self, key: str) -> bool:
        return await self.backend.exists(check_key(key))

    async def ttl(self, key: str) -> float | Never | None:
        return await self.backend.ttl(check_key(key))

    def scan(self, pattern: str = "*") -> AsyncIterator[str]:
        return self.backend.scan(check_key(pattern, name="pattern"))

    # -- writing

    async def set(self, key: str, value: T, ttl: TTL | None = None, *, tags: Iterable[str] = ()) -> bool:
        check_key(key)
        seconds = resolve_ttl(ttl, self.default_ttl)
        named = check_tags(tags) if tags else ()
        encoded = self.codec.encode(value)
        self._break_keys((key,))
        if seconds <= 0:
            await self.backend.remove((key,))
            return False
        self.counters.sets += 1
        return await self.backend.store({key: encoded}, Lifetime(seconds), named)

    async def set_many(self, mapping: Mapping[str, T], ttl: TTL | None = None, *, tags: Iterable[str] = ()) -> bool:
        if not isinstance(mapping, Mapping):
            raise CacheValueError(f"mapping must map keys to values, not {type(mapping).__name__}; pass a dict")
        keys = _check_keys(mapping)
        seconds = resolve_ttl(ttl, self.default_ttl)
        named = check_tags(tags) if tags else ()
        entries = {key: self.codec.encode(value) for key, value in mapping.items()}
        self._break_keys(keys)
        if not keys:
            return True
        if seconds <= 0:
            await self.backend.remove(keys)
            return False
        self.counters.sets += len(keys)
        return await self.backend.store(entries, Lifetime(seconds), named)

    async def increment(self, key: str, amount: int = 1, ttl: TTL | None = None) -> int:
        check_key(key)
        check_amount(amount)
        seconds = resolve_ttl(ttl, self.default_ttl)
        self._break_keys((key,))
        total = await self.backend.add(key, amount, seconds)
        self.counters.increments += 1
        return total

    async def expire(self, key: str, ttl: TTL) -> bool:
        check_key(key)
        seconds = resolve_ttl(ttl, self.default_ttl)
        return await self.backend.expire(key, seconds) if seconds > 0 else await self.delete(key)

    # -- invalidating

    async def delete(self, key: str) -> bool:
        return await self.delete_many([key]) > 0

    async def delete_many(self, keys: Iterable[str]) -> int:
        wanted = _check_keys(keys)
        self._break_keys(wanted)
        if not wanted:
            return 0
        removed = await self.backend.remove(wanted)
        self.counters.deletes += removed
        return removed

    async def delete_pattern(self, pattern: str) -> int:
        return await self.delete_patterns([pattern])

    async def delete_patterns(self, patterns: Iterable[str]) -> int:
        """Remove the entries that match one of the patterns, in one pass over the keys; how many there were.

        Where :func:`~agent_service.core.globs.compile_globs` finds them too many the namespace is cleared instead, and
        they count as none.
        """
        wanted = check_keys(patterns, name="pattern")
        keys = [each for each in wanted if _WILDCARDS.isdisjoint(each)]
        removed = await self.delete_many(keys)
        if len(keys) == len(wanted):
            return removed
        globs = await compiled(each for each in wanted if not _WILDCARDS.isdisjoint(each))
        if globs is None:
            self.counters.pattern_clears += 1
            await self.clear()
            return removed
        self.leases.break_matching(globs.matches)
        self.loading.failures.clear()
        matching = await self.backend.remove_matching(globs)
        self.counters.deletes += matching
        return removed + matching

    async def invalidate_tags(self, tags: Iterable[str]) -> None:
        wanted = check_tags(tags)
        self.leases.break_tags(wanted)
        self.loading.failures.clear()
        if wanted:
            await self.backend.invalidate_tags(wanted)

    async def clear(self) -> None:
        self.leases.break_all()
        self.loading.failures.clear()
        await self.backend.clear()

    def _break_keys(self, keys: Iterable[str]) -> None:
        self.leases.break_keys(keys)
        if self.loading.failures.known:
            self.loading.failures.forget(keys)

    # -- loading

    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[L]],
        *,
        info: Literal[False] = False,
        **options: Unpack[LoadOptions[L]],
    ) -> L: ...
    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[L]],
        *,
        info: Literal[True],
        **options: Unpack[LoadOptions[L]],
    ) -> Loaded[L]: ...
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[L]],
        *,
        info: bool = False,
        **options: Unpack[LoadOptions[L]],
    ) -> L | Loaded[L]:
        check_key(key)
        if not callable(loader):
            raise CacheValueError(f"loader must be a function to call on a miss, not {type(loader).__name__}")
        policy = make_policy(self.default_ttl, options)
        if policy.context:
            policy = policy._replace(seen=CallContext(policy.context).digest())
        tags = options.get("tags", ())
        named = () if callable(tags) or not tags else check_tags(tags)
        found = await self.loading.obtain(key, loader, policy, named)
        value = self._plain(found.value, MISS)
        if value is MISS:
            self.loading.withdraw(found)
            found = await self.loading.load(key, loader, policy, named, fresh=True)
            value = plain(found.value)
        return Loaded(value, found.level, found.age, found.stale_reason) if info else value

    async def get_or_load_many(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Awaitable[Mapping[str, L]]],
        *,
        ttl: TTL | None = None,
        tags: Iterable[str] = (),
    ) -> dict[str, L]:
        wanted = _check_keys(keys)
        if not callable(loader):
            raise CacheValueError(f"loader must be a function of the missing keys, not {type(loader).__name__}")
        seconds = resolve_ttl(ttl, self.default_ttl)
        named = check_tags(tags) if tags else ()
        values: dict[str, L] = {}
        if wanted:
            found = await self.loading.read_many_settled(wanted, named)
            values = self._values(found)
        missing = [key for key in wanted if key not in values]
        if missing:
            loaded = await load_many(self.loading, self.backend, missing, loader, life=Lifetime(seconds), tags=named)
            opened = {key: self._plain(each, MISS) for key, each in loaded.items()}
            values.update({key: each for key, each in opened.items() if each is not MISS})
        return {key: values[key] for key in wanted if key in values}

    async def aclose(self) -> None:
        await self.loading.aclose()


def _check_keys(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(check_keys(keys)))
