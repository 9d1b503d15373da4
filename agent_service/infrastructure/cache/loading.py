"""From a miss to a value: one load for all who ask, fenced, with staleness where a caller allows it.

What a call does is decided in this order: a fresh entry is given (and a refresh begun where it is due); else one load
runs for all callers of the key; and while that is slow, or when it fails, or failed lately, a stale entry is given
where there is one and the caller allows it. Storing what was loaded is the lease's affair (``leases.py``): a load that
was overtaken by an invalidation stores nothing.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from agent_service.core.errors import CacheError, CacheSerializationError, CacheValueError, LoadTimeoutError
from agent_service.core.logging import logger
from agent_service.core.singleflight import Fence, SingleFlight
from agent_service.infrastructure.cache.backend import Backend, Found, Life
from agent_service.infrastructure.cache.failures import Failures
from agent_service.infrastructure.cache.leases import Grant, Lease, LeaseBook
from agent_service.infrastructure.cache.policy import LoadPolicy, check_tags
from agent_service.infrastructure.cache.raised import describe, rebuild
from agent_service.infrastructure.cache.values import Encoded

__all__ = ["Loader", "Loading", "Obtained"]

T = TypeVar("T")
Loader = Callable[[], Awaitable[Any]]

_FIRST_POLL = 0.01
_LONGEST_POLL = 0.1
"""Seconds between two looks for what another process loads."""

_REFRESH_PAUSE = 1.0
"""Seconds until this process looks again whether another one has refreshed an entry."""


class Obtained(NamedTuple):
    """A value for one caller."""

    value: Any
    level: str
    age: float | None
    stale_reason: str | None
    encoded: Encoded | None = None
    """What was loaded, where it was."""


class Loading:
    """The loads of one cache on one event loop."""

    def __init__(self, backend: Backend, leases: LeaseBook) -> None:
        self._backend = backend
        self._counters = backend.counters
        self._refreshing: dict[str, asyncio.Task[None] | asyncio.TimerHandle] = {}
        self._ended = 0
        self.leases = leases
        self.flights = SingleFlight()
        self.failures = Failures()

    async def obtain(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str] = ()) -> Obtained:
        """Give the cached value or load it."""
        found = await self.read_settled(key, tags)
        stale = None
        if found is not None:
            if found.left > 0:
                given = self._hit(found, policy)
                if given is not None:
                    if policy.refresh_at is not None and _is_due(found, policy.refresh_at):
                        self._refresh(key, loader, policy, tags)
                    return given
            elif -found.left < policy.stale_for and not found.raised:
                stale = found
        return await self.load(key, loader, policy, tags, stale=stale)

    def _hit(self, found: Found, policy: LoadPolicy) -> Obtained | None:
        if found.raised:
            failure = rebuild(found.value, policy.exceptions)
            if failure is None:
                return None
            raise failure
        return Obtained(found.value, found.level, found.age, None)

    async def read_settled(self, key: str, tags: Sequence[str] = ()) -> Found | None:
        """Read; once more when a load ended meanwhile, because the miss may be older than what that load stored."""
        ended = self._ended
        found = await self._backend.read(key, tags)
        if (found is None or found.left <= 0) and not await self._may_join(key) and ended != self._ended:
            found = await self._backend.read(key, tags)
        return found

    async def read_many_settled(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, Found]:
        """Give the fresh entries among many keys, with the same care as :meth:`read_settled`."""
        ended = self._ended
        found = await self._fresh(keys, tags)
        missing = [key for key in keys if key not in found]
        alone = [key for key in missing if not await self._may_join(key)]
        if alone and ended != self._ended:
            found.update(await self._fresh(alone, tags))
        return found

    async def _fresh(self, keys: Sequence[str], tags: Sequence[str]) -> dict[str, Found]:
        found = await self._backend.read_many(keys, tags)
        return {key: each for key, each in found.items() if each.left > 0 and not each.raised}

    async def _may_join(self, key: str) -> bool:
        """Whether a load is running that this caller may share: nobody broke its lease, in no process, until now."""
        lease = self.flights.fence_of(key)
        if not isinstance(lease, Lease):
            return False
        if lease.grant is not None and not await lease.grant.stands():
            self._close(lease)
        return self.flights.fence_of(key) is lease

    async def load(
        self,
        key: str,
        loader: Loader,
        policy: LoadPolicy,
        tags: Sequence[str] = (),
        *,
        stale: Found | None = None,
        fresh: bool = False,
    ) -> Obtained:
        """Join or make the load of a missing key.

        :param stale: what may be given in place of what is loaded.
        :param fresh: make a new load, and let none that began earlier store its value.
        """
        if fresh:
            self.leases.break_keys((key,))
        else:
            failure = self.failures.standing(key)
            if failure is not None:
                if stale is None:
                    raise failure
                return self._stale(stale, "backoff")
        run = functools.partial(self._run, loader=loader, policy=policy, fresh=fresh)
        open_lease = functools.partial(self.leases.open, key, tags, more_tags=policy.tags_of is not None)
        if stale is not None and policy.soft_timeout == 0:
            self._counters.refreshes += 1
            self.flights.launch(key, run, open_lease, context=policy.context)
            return self._stale(stale, "timeout")
        goes_on = stale is not None and policy.soft_timeout is not None
        limit = _shorter(policy.soft_timeout if goes_on else None, policy.hard_timeout)
        try:
            async with asyncio.timeout(limit) as scope:
                encoded = None
                while encoded is None:  # a load for many keys may find no value for this one
                    encoded = await self.flights.run(key, run, open_lease, context=policy.context, goes_on=goes_on)
        except Exception as exc:
            timed_out = scope.expired() and isinstance(exc, TimeoutError)
            if stale is not None and not isinstance(exc, CacheError) and policy.life_of_exception(exc) is None:
                return self._stale(stale, "timeout" if timed_out else "error")
            if timed_out:
                raise LoadTimeoutError(
                    f"the load of {key!r:.80} took longer than its hard timeout of {limit:g} s"
                ) from exc
            raise
        return Obtained(encoded.open(), "load", 0.0, None, encoded)

    def _stale(self, found: Found, reason: str) -> Obtained:
        self._counters.stale += 1
        return Obtained(found.value, found.level, found.age, reason)

    # -- in the background

    def _refresh(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str]) -> None:
        """Begin a refresh, unless one is under way here; whether one is elsewhere is asked in the background."""
        if key in self._refreshing or self.flights.fence_of(key) is not None or self.failures.standing(key) is not None:
            return
        task = asyncio.get_running_loop().create_task(self._refresh_if_first(key, loader, policy, tags))
        self._refreshing[key] = task
        task.add_done_callback(lambda _task: self._refreshed(key))

    async def _refresh_if_first(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str]) -> None:
        try:
            grant = await self._backend.grant(key, tags, "leave", more_tags=policy.tags_of is not None)
            if not grant.is_first:
                await grant.release(tell=False)
                return
            self._counters.refreshes += 1
            run = functools.partial(self._run, loader=loader, policy=policy, grant=grant)
            open_lease = functools.partial(self.leases.open, key, tags, more_tags=policy.tags_of is not None)
            try:
                await self.flights.run(key, run, open_lease, context=policy.context, goes_on=True)
            finally:
                await asyncio.shield(grant.release())
        except Exception:  # noqa: BLE001 - nobody awaits this
            logger.warning("a refresh failed; the value that is cached goes on being served", exc_info=True)

    def _refreshed(self, key: str) -> None:
        pause = asyncio.get_running_loop().call_later(_REFRESH_PAUSE, self._refreshing.pop, key, None)
        self._refreshing[key] = pause

    # -- the load itself

    async def _run(
        self, fence: Fence, *, loader: Loader, policy: LoadPolicy, fresh: bool = False, grant: Grant | None = None
    ) -> Encoded:
        assert isinstance(fence, Lease)
        try:
            if grant is not None:
                fence.grant = grant
            elif policy.exclusive and not fresh:
                elsewhere = await self._wait_for_other(fence, policy)
                if elsewhere is not None:
                    return elsewhere
            else:
                fence.grant = await self.grant(fence, fresh=fresh)
            return await self._load_and_fill(fence, loader, policy)
        finally:
            await self.give_back(fence)

    async def grant(self, lease: Lease, *, fresh: bool = False) -> Grant:
        """Ask the backend for the right to store under a lease."""
        return await self._backend.grant(
            lease.key, lease.tags, "break" if fresh else "share", more_tags=lease.more_tags
        )

    async def give_back(self, lease: Lease) -> None:
        """End a lease, here and in the backend."""
        self._close(lease)
        if lease.grant is not None:
            await asyncio.shield(lease.grant.release())

    def _close(self, lease: Lease) -> None:
        self.leases.close(lease)
        self._ended += 1  # from now on nobody joins its load, and what it stored, if it did, can be read

    async def _wait_for_other(self, lease: Lease, policy: LoadPolicy) -> Encoded | None:
        """Wait while another process loads; give what it stored, or None when it is for this one to load.

        Who gets the lease looks once more, because the load of another process may have ended since this one looked.
        """
        pause = _FIRST_POLL
        while True:
            lease.grant = await self._backend.grant(lease.key, lease.tags, "leave", more_tags=lease.more_tags)
            if not lease.grant.is_first:
                await lease.grant.release(tell=False)
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_POLL)
            found = await self._backend.read(lease.key, lease.tags)
            if found is not None and found.left > 0:
                given = self._hit(found, policy)
                if given is not None:
                    return self._backend.codec.encode(given.value)
            if lease.grant.is_first:
                return None

    async def _load_and_fill(self, lease: Lease, loader: Loader, policy: LoadPolicy) -> Encoded:
        self._counters.loads += 1
        try:
            value = await _awaitable(loader())
        except Exception as exc:
            self._counters.load_errors += 1
            await self._keep_failure(lease, exc, policy)
            raise
        self.failures.forget((lease.key,))
        life = policy.life_of(value)
        try:
            encoded = self._backend.codec.encode(value)
        except CacheSerializationError:
            self._counters.errors += 1
            if policy.strict:
                raise
            return Encoded(value, None, value, None)
        if life is not None and life.seconds > 0:
            more = () if policy.tags_of is None else check_tags(policy.tags_of(value))
            await self.fill(lease, encoded, life, tuple(dict.fromkeys((*lease.tags, *more))))
        return encoded

    async def fill(self, lease: Lease, encoded: Encoded, life: Life, tags: Sequence[str]) -> None:
        """Store what was loaded, unless an invalidation came first."""
        if lease.broken or lease.grant is None or not await lease.grant.fill(lease, encoded, life, tags):
            self._counters.fill_rejected += 1
        else:
            self._counters.sets += 1

    async def _keep_failure(self, lease: Lease, exc: Exception, policy: LoadPolicy) -> None:
        life = policy.life_of_exception(exc)
        if life is not None and life.seconds > 0:
            described = describe(exc, policy.exceptions)
            try:
                encoded = None if described is None else self._backend.codec.encode(described)
            except CacheSerializationError:
                encoded = None
            if encoded is not None:
                await self.fill(lease, _as_raised(encoded), life, lease.tags)
                return
        if policy.failure_backoff:
            self.failures.remember(lease.key, exc, policy.failure_backoff)

    async def aclose(self) -> None:
        """End the running loads."""
        for each in list(self._refreshing.values()):
            each.cancel()
        await self.flights.aclose()
        tasks = [each for each in self._refreshing.values() if isinstance(each, asyncio.Task)]
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in list(self._refreshing.values()):
            each.cancel()
        self._refreshing.clear()


def _is_due(found: Found, refresh_at: float) -> bool:
    return found.life is not None and found.left < found.life * (1 - refresh_at)


def _shorter(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else min(first, second)


def _as_raised(encoded: Encoded) -> Encoded:
    return Encoded(encoded.value, encoded.data, encoded.kept, encoded.copy, raised=True)


def _awaitable(loading: Awaitable[T]) -> Awaitable[T]:
    if not inspect.isawaitable(loading):
        raise CacheValueError(f"loader must be an async function; it returned {type(loading).__name__}")
    return loading
