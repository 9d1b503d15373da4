"""The cache contract, stated as obligations that every backend keeps."""

import contextvars
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, overload

from typing_extensions import TypeVar

from agent_service.core.ttl import TTL, Never

__all__ = ["MISS", "Hit", "ICache", "LoadOptions", "Loaded", "Lookup", "Miss"]

T = TypeVar("T", default=Any)
D = TypeVar("D")
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """A value that was found; the value may be None."""

    value: T


class Miss(Enum):
    """The type of :data:`MISS`."""

    MISS = "miss"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISS"


MISS: Final = Miss.MISS
"""What :meth:`ICache.lookup` gives when there is no live entry. False in a boolean context."""

Lookup: TypeAlias = Hit[T] | Miss


class LoadOptions(TypedDict, Generic[T], total=False):
    """How :meth:`ICache.get_or_load` loads and keeps a value. All durations are seconds."""

    ttl: TTL | Callable[[T], TTL | None] | None
    """As for :meth:`ICache.set`, or a function of the result that gives it."""
    tags: Iterable[str] | Callable[[T], Iterable[str]]
    """Of the entry, or a function of the result that gives them."""
    stale_for: TTL
    """How long after its TTL the value is kept, to be given when the load fails or is slow."""
    soft_timeout: float | None
    """How long to wait for a load while there is a stale value to give; the load goes on in the background. 0: give the
    stale value at once. None: wait for the load."""
    hard_timeout: float | None
    """How long to wait for a load at all."""
    refresh_at: float | None
    """The fraction of the TTL after which a hit starts a load in the background, one at a time among all processes."""
    failure_backoff: float
    """How long after a failed load no other is tried: the stale value, or else the failure, is given again."""
    negative_ttl: TTL | None
    """The TTL of a result of None."""
    cache_if: Callable[[T], bool] | None
    """Tells of a result whether it is stored."""
    cache_exceptions: Mapping[type[Exception], TTL] | None
    """Exceptions of the loader that are stored in place of a result, with their TTLs: of just these classes, not of
    subclasses. One that its class does not give back when called with its arguments is not stored."""
    jitter: float
    """The largest fraction by which the TTL is shortened at random, so that entries stored together do not expire
    together."""
    context: Iterable[contextvars.ContextVar[Any]]
    """Context variables the loader may see; it sees no others. Its result is given only to calls of ``get_or_load`` in
    which they have the same values; to every other read it is a miss. A key that names their values keeps each."""
    lock: str | None
    """"distributed": one load for all processes; the others wait for its value, and take over when its process dies or
    it fails. None: one load for each process, with nothing to wait for."""


class Loaded(NamedTuple, Generic[T]):
    """A value and where it comes from."""

    value: T
    level: str
    """"l1" (memory in front of Redis), "redis", "memory", or "load": it was loaded for this call."""
    age: float | None
    """Seconds since it was loaded or set; None for a counter in Redis, of which that is not kept."""
    stale_reason: str | None
    """None: it is fresh. Else why a stale one was given: "error", "timeout" or "backoff"."""


class ICache(ABC, Generic[T]):
    """A cache of one namespace. The same calls give the same results on every backend.

    * **Absence.** A missing, expired, evicted or undecodable entry is a miss, never an error. ``None`` is a value.
    * **No aliasing.** Changing a value after storing it, or a value that was read, changes nothing in the cache. What
      is read equals what was stored, types of the standard library included; a dataclass, model or Enum that was not
      registered (:func:`agent_service.core.codec.register_type`) comes back as plain data.
    * **TTL.** ``None`` is the cache's default, ``NEVER`` no expiry, a number or timedelta is seconds with millisecond
      precision. Zero or less stores nothing and removes what was there.
    * **Keys** are any non-empty text up to 8,192 UTF-8 bytes. Namespaces never see each other's keys.
    * **Patterns** are Redis globs (``*``, ``?``, ``[a-c]``, ``[^a]``, backslash), matched on UTF-8 bytes.
    * **Counters.** An int within 64 bits is a counter: :meth:`increment` is atomic among all users of the backend.
    * **Tags.** An entry may have tags. Invalidating one makes every entry that has it a miss, and so does :meth:`clear`
      for all entries, at a cost that does not grow with their number.
    * **Order.** An operation that begins after another has returned sees its effect.
    * **Loads.** Concurrent :meth:`get_or_load` calls for one key make one load. A value whose key was written,
      deleted or invalidated, by whatever means, while it was being loaded is returned to those who already waited and
      is not stored; who comes later does not get it.
    * **Staleness** only where a call allows it. To every other call a stale entry is a miss. An entry that was
      invalidated is never served, stale or not, to a call that begins afterwards.
    * **Errors.** Misuse raises, before anything is changed: :class:`CacheKeyError` (keys, patterns),
      :class:`CacheValueError` (TTLs, amounts, counters that are no integers), :class:`CacheSerializationError`
      (values). An outage raises nothing on the caches that :func:`get_cache` gives.
    * **Failover.** Redis replicates asynchronously, so what it answered just before a replica takes over may be undone:
      an invalidated or overwritten value is served again until its TTL is over, a counter steps back, a lock is held
      twice. With REDIS_WAIT_REPLICAS an invalidation is sent again until replicas have confirmed it.
    """

    namespace: str
    """Name of the namespace; the default one is ``"default"``."""

    @abstractmethod
    async def lookup(self, key: str) -> Lookup[T]:
        """Return ``Hit(value)`` or ``MISS``. Counts as one hit or miss."""

    @overload
    async def get(self, key: str) -> T | None: ...
    @overload
    async def get(self, key: str, default: D) -> T | D: ...
    async def get(self, key: str, default: object = None) -> object:
        """Return the value, or ``default`` on a miss. Use :meth:`lookup` where None is a possible value."""
        found = await self.lookup(key)
        return found.value if found is not MISS else default

    @abstractmethod
    async def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """Return the hits among the keys, in one round trip."""

    @abstractmethod
    async def set(self, key: str, value: T, ttl: TTL | None = None, *, tags: Iterable[str] = ()) -> bool:
        """Store a value. True when it was stored."""

    @abstractmethod
    async def set_many(self, mapping: Mapping[str, T], ttl: TTL | None = None, *, tags: Iterable[str] = ()) -> bool:
        """Store values; nothing is stored when one of them is unusable. True when all were."""

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Remove an entry. True when there was one."""

    @abstractmethod
    async def delete_many(self, keys: Iterable[str]) -> int:
        """Remove entries, in one round trip. How many there were."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is a live entry. Counts as no read."""

    @abstractmethod
    async def increment(self, key: str, amount: int = 1, ttl: TTL | None = None) -> int:
        """Add to a counter and give the new value. A missing one starts at 0 with ``ttl``; another keeps its own TTL
        and its tags.

        :raises CacheValueError: when the entry is no integer, or the result leaves 64 bits.
        """

    @abstractmethod
    async def expire(self, key: str, ttl: TTL) -> bool:
        """Set a new TTL on an entry, counted from now. False when there is none. Zero or less removes it."""

    @abstractmethod
    async def ttl(self, key: str) -> float | Never | None:
        """Seconds left, ``NEVER``, or None when there is no live entry."""

    @abstractmethod
    def scan(self, pattern: str = "*") -> AsyncIterator[str]:
        """Iterate over the keys of live entries that match, each once, in no order.

        Entries that come or go meanwhile may or may not be seen. Cost: one pass over all keys of the backend.
        """

    @abstractmethod
    async def delete_pattern(self, pattern: str) -> int:
        """Remove every entry that matches. How many there were. Cost: as :meth:`scan`, unless no wildcard is in it."""

    @abstractmethod
    async def invalidate_tags(self, tags: Iterable[str]) -> None:
        """Invalidate every entry that has one of the tags. Cost: the number of tags, not of entries."""

    @abstractmethod
    async def clear(self) -> None:
        """Invalidate every entry of this namespace. Cost: in Redis one command, whatever the number of entries."""

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
    @abstractmethod
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[L]],
        *,
        info: bool = False,
        **options: Unpack[LoadOptions[L]],
    ) -> L | Loaded[L]:
        """Return the cached value, or load, store and give it. ``None`` is a value and is stored.

        Concurrent calls share one load; it is cancelled only when the last of them is. Its failure is raised by each
        and stores nothing.

        :param loader: takes no argument.
        :param info: give a :class:`Loaded`, which tells where the value comes from.
        :param options: see :class:`LoadOptions`; ``ttl=`` is the usual one.
        :raises ReentrantLoadError: when the loader asks for the key it is loading.
        :raises LoadTimeoutError: when ``hard_timeout`` is over and there is no stale value to give.
        :raises CacheValueError: for an option that cannot be used.
        """

    @abstractmethod
    async def get_or_load_many(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Awaitable[Mapping[str, L]]],
        *,
        ttl: TTL | None = None,
        tags: Iterable[str] = (),
    ) -> dict[str, L]:
        """Return the values of many keys; those that are missing are loaded together, each key once at a time.

        :param loader: called with the keys that are missing and that nobody loads yet; gives their values. A key that
            it leaves out is left out of the result and is not stored.
        :param tags: of every entry that is loaded.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the running loads of this handle. What is stored stays."""
