"""The load under which servers fail: two processes that use their caches in every way, and somebody outside."""

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from agent_service.core.errors import RedisOperationError
from agent_service.infrastructure.cache.redis.cache import RedisCache
from tests.cache.faults.meter import Meter
from tests.cache.faults.process import Process
from tests.cache.faults.user import Shared, User

__all__ = ["Load"]


class Load:
    """Calls of every kind, until told to stop.

    :param processes: they share a Redis and do not know of each other.
    :param outside: a cache whose way to Redis no fault of a network is on.
    :param max_staleness: seconds, of the processes' copies in memory.
    :param pause: seconds between two calls of one task, on average.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        outside: RedisCache[Any],
        *,
        max_staleness: float,
        pause: float,
        rng: random.Random,
    ) -> None:
        self.meter = Meter()
        self.far = Shared("far", self.meter, rng, bound=0)
        self.near = Shared("near", self.meter, rng, bound=max_staleness)
        self.most_stale = 0.0
        """Seconds between a change from outside and the beginning of the latest call that gave what was before it."""
        self._processes = processes
        self._outside = outside
        self._pause = pause
        self._rng = rng
        self._latest = 0
        self._written: tuple[list[float], list[int]] = [], []
        self._running = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Put the load on; at the end wait for every call that has begun."""
        watch = asyncio.create_task(self.meter.watch_the_loop())
        try:
            async with asyncio.TaskGroup() as group:
                for work in self._work():
                    group.create_task(work)
                try:
                    yield
                finally:
                    self._running = False
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        work = [self._often(self._write_from_outside)]
        for process in self._processes:
            far = User(process, process.far, process.far_counters, self.far)
            near = User(process, process.near, process.near_counters, self.near)
            work += [self._often(each) for each in (*far.habits(), *near.habits())]
            work += [self._often(self._read_from_outside, process) for _ in range(2)]
        return work

    async def _often(self, act: Callable[..., Awaitable[None]], *args: Any) -> None:
        while self._running:
            await act(*args)
            await asyncio.sleep(self._rng.expovariate(1 / self._pause))

    async def _write_from_outside(self) -> None:
        if self._rng.random() < 0.7:  # else there would be few copies to read
            return
        self._latest += 1
        with suppress(RedisOperationError):  # then nobody knows whether it was written
            await self._outside.set("k", [self._latest])
            self._written[0].append(time.monotonic())
            self._written[1].append(self._latest)

    async def _read_from_outside(self, process: Process) -> None:
        began = time.monotonic()
        found = await self.meter.time("get", process.outside.get("k"))
        if found is None:
            return
        times, numbers = self._written
        newer = bisect_right(numbers, found[0])
        if newer < len(numbers):
            self.most_stale = max(self.most_stale, began - times[newer])
