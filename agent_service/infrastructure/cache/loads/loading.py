"""From a miss to a value: one load for all who ask, fenced, with staleness where a caller allows it.

What a call does is decided in this order: a fresh entry is given (and a refresh begun where it is due); else one load
runs for all callers of the key; and while that is slow, or when it fails, or failed lately, a stale entry is given
where there is one and the caller allows it. The load itself is run by ``filling.py``.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from agent_service.core.errors import CacheError, LoadTimeoutError
from agent_service.core.singleflight import SingleFlight
from agent_service.core.turns import Turns
from agent_service.infrastructure.cache.backend import Backend
from agent_service.infrastructure.cache.leases import Lease, LeaseBook
from agent_service.infrastructure.cache.loads.failures import Failures
from agent_service.infrastructure.cache.loads.filling import Filler, Loader, opened, value_of
from agent_service.infrastructure.cache.loads.policy import LoadPolicy
from agent_service.infrastructure.cache.values import CachedValue, Encoded

__all__ = ["Loading", "Obtained"]

logger = logging.getLogger("agent_service.cache")

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

    def __init__(
        self,
        backend: Backend,
        leases: LeaseBook,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        namespace: str = "default",
    ) -> None:
        self._backend = backend
        self.span_attributes = {"agent_service.cache.namespace": namespace}
        self._counters = backend.counters
        self._refreshing: dict[str, asyncio.Task[None] | asyncio.TimerHandle] = {}
        self.leases = leases
        self.flights = SingleFlight()
        self.failures = Failures(monotonic)
        self.filler = Filler(backend, leases, self.failures, self.span_attributes)

    async def obtain(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str] = ()) -> Obtained:
        """Return the cached value or load it."""
        ended = self.leases.ended
        found = await self._backend.read(key, tags)
        return await self.answer(key, loader, policy, tags, found=found, ended=ended)

    async def answer(
        self,
        key: str,
        loader: Loader,
        policy: LoadPolicy,
        tags: Sequence[str] = (),
        *,
        found: CachedValue | None,
        ended: int,
    ) -> Obtained:
        """:meth:`obtain`, given what was read.

        :param ended: what ``leases.ended`` was before the read.
        """
        missed = found is None or found.left <= 0
        joins = missed and self.flights.running and await self._may_join(_flight(key, policy))
        if missed and not joins and ended != self.leases.ended:
            # A load ended meanwhile, and the miss may be older than what it stored. Both reads are counted as one.
            self._counters.take_back(None)
            found = await self._backend.read(key, tags)
        stale = None
        if found is not None:
            if found.left > 0:
                given = value_of(found, policy, self._counters)
                if given is not None:
                    if policy.refresh_at is not None and _is_due(found, policy.refresh_at):
                        self._refresh(key, loader, policy, tags)
                    return Obtained(given[0], found.level, found.age, None)
                self._counters.retract_hit(found.level)
            elif -found.left < policy.stale_for:
                old = opened(found, policy, self._counters)
                stale = found._replace(value=old[0]) if isinstance(old, tuple) else None
        return await self.load(key, loader, policy, tags, stale=stale)

    async def read_many_settled(self, keys: Sequence[str], tags: Sequence[str] = ()) -> dict[str, CachedValue]:
        """Return the fresh entries among many keys, with the same care as for one."""
        ended = self.leases.ended
        found = await self._fresh(keys, tags)
        missing = [key for key in keys if key not in found]
        alone = [key for key in missing if not await self._may_join(key)]
        if alone and ended != self.leases.ended:
            self._counters.misses -= len(alone)  # both looks are one read
            found.update(await self._fresh(alone, tags))
        return found

    async def _fresh(self, keys: Sequence[str], tags: Sequence[str]) -> dict[str, CachedValue]:
        found = await self._backend.read_many(keys, tags)
        for each in found.values():
            if each.left > 0 and each.raised:
                self._counters.retract_hit(each.level)
        return {key: each for key, each in found.items() if each.left > 0 and not each.raised}

    async def _may_join(self, flight: str) -> bool:
        """Whether a load is running that this caller may share: nobody broke its lease, in no process, until now."""
        lease = self.flights.joinable(flight)
        if not isinstance(lease, Lease):
            return False
        if lease.backend_lease is not None and not await lease.backend_lease.holds():
            self.leases.close(lease)
        return self.flights.joinable(flight) is lease

    async def load(
        self,
        key: str,
        loader: Loader,
        policy: LoadPolicy,
        tags: Sequence[str] = (),
        *,
        stale: CachedValue | None = None,
        fresh: bool = False,
    ) -> Obtained:
        """Join or make the load of a missing key.

        :param stale: what may be given in place of what is loaded.
        :param fresh: make a new load, and let none that began earlier store its value.
        """
        if fresh:
            self.leases.break_keys((key,))
        elif self.failures.known:
            failure = self.failures.recent(key, policy.seen)
            if failure is not None:
                if stale is None:
                    raise failure
                return self._stale(stale, "backoff")
        run = functools.partial(self.filler.run, loader=loader, policy=policy, fresh=fresh)
        open_lease = functools.partial(self.leases.open, key, tags, more_tags=policy.tags is not None)
        if stale is not None and policy.soft_timeout == 0:
            self._counters.refreshes += 1
            self.flights.launch(_flight(key, policy), run, open_lease, context=policy.context)
            return self._stale(stale, "timeout")
        goes_on = stale is not None and policy.soft_timeout is not None
        limit = _shorter(policy.soft_timeout if goes_on else None, policy.hard_timeout)
        scope = None if limit is None else Turns(limit)
        try:
            async with scope or nullcontext():
                encoded = None
                while encoded is None:  # a load for many keys may find no value for this one
                    encoded = await self.flights.run(
                        _flight(key, policy), run, open_lease, context=policy.context, goes_on=goes_on
                    )
        except Exception as exc:
            timed_out = scope is not None and scope.expired and isinstance(exc, TimeoutError)
            if stale is not None and not isinstance(exc, CacheError) and policy.life_of_exception(exc) is None:
                return self._stale(stale, "timeout" if timed_out else "error")
            if timed_out:
                raise LoadTimeoutError(
                    f"the load of {key!r:.80} took longer than its hard timeout of {limit:g} s"
                ) from exc
            raise
        return Obtained(encoded.open(), "load", 0.0, None, encoded)

    def withdraw(self, obtained: Obtained) -> None:
        """Count as a miss what was read and could not be given to the caller after all; what was loaded is one."""
        if obtained.encoded is not None:
            return
        if obtained.stale_reason is None:
            self._counters.retract_hit(obtained.level)
        else:
            self._counters.stale -= 1

    def _stale(self, found: CachedValue, reason: str) -> Obtained:
        self._counters.stale += 1
        return Obtained(found.value, found.level, found.age, reason)

    # -- in the background

    def _refresh(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str]) -> None:
        """Begin a refresh, unless one is under way here; whether one is elsewhere is asked in the background."""
        flight = _flight(key, policy)
        if flight in self._refreshing or self.flights.joinable(flight) is not None:
            return
        if self.failures.known and self.failures.recent(key, policy.seen) is not None:
            return
        task = asyncio.get_running_loop().create_task(self._refresh_if_first(key, loader, policy, tags))
        self._refreshing[flight] = task
        task.add_done_callback(lambda _task: self._refreshed(flight))

    async def _refresh_if_first(self, key: str, loader: Loader, policy: LoadPolicy, tags: Sequence[str]) -> None:
        try:
            backend_lease = await self._backend.lease(key, tags, "leave", more_tags=policy.tags is not None)
            if not backend_lease.is_first:
                await backend_lease.release(tell=False)
                return
            self._counters.refreshes += 1
            run = functools.partial(self.filler.run, loader=loader, policy=policy, backend_lease=backend_lease)
            open_lease = functools.partial(self.leases.open, key, tags, more_tags=policy.tags is not None)
            try:
                await self.flights.run(_flight(key, policy), run, open_lease, context=policy.context, goes_on=True)
            finally:
                await asyncio.shield(backend_lease.release())
        except Exception:
            logger.warning("a refresh failed; the value that is cached goes on being served", exc_info=True)

    def _refreshed(self, flight: str) -> None:
        pause = asyncio.get_running_loop().call_later(_REFRESH_PAUSE, self._refreshing.pop, flight, None)
        self._refreshing[flight] = pause

    async def aclose(self) -> None:
        """End the running loads of this event loop."""
        for each in self._refreshing.copy().values():
            each.cancel()
        await self.flights.aclose()
        loop = asyncio.get_running_loop()
        tasks = [each for each in self._refreshing.copy().values() if isinstance(each, asyncio.Task)]
        await asyncio.gather(*(task for task in tasks if task.get_loop() is loop), return_exceptions=True)
        for each in self._refreshing.copy().values():
            each.cancel()
        self._refreshing.clear()


def _flight(key: str, policy: LoadPolicy) -> str:
    """Return the name of the load of a key, which callers share who see the same. No key is such a name."""
    return f"{key}\udcff{policy.seen}" if policy.seen else key


def _is_due(found: CachedValue, refresh_at: float) -> bool:
    return found.life is not None and found.left < found.life * (1 - refresh_at)


def _shorter(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else min(first, second)
