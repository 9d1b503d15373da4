"""The short way of a decorated function to a value in memory."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service.infrastructure.cache import (
    InMemoryCache,
    cached,
)
from agent_service.testing.clock import FakeClock

pytestmark = pytest.mark.usefixtures("anywhere")


async def test_the_short_way_to_memory_sees_every_change():
    """The compiled wrapper keeps entries by argument; each way an entry can go must be seen by it."""
    clock = FakeClock()
    cache: InMemoryCache[Any] = InMemoryCache(3, clock=clock)
    answer = 0

    @cached(cache=cache, ttl=10)
    async def f(n: int) -> int:
        return answer

    async def warm() -> None:
        await f(1)
        before = cache.counters.hits
        await f(1)
        assert cache.counters.hits == before + 1

    key = f.cache_key(1)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: cache.delete(key),
        lambda: cache.delete_pattern("*"),
        cache.clear,
        lambda: cache.expire(key, 0),
        lambda: cache.set(key, 5),
        lambda: cache.set_many({"x": 1, "y": 2, "z": 3}),
    ]
    for number, change in enumerate(changes, start=1):
        await warm()
        answer = number
        await change()
        assert await f(1) == number
    await warm()
    answer = 99
    clock.advance(10)
    assert await f(1) == 99


async def test_a_hit_on_the_short_way_keeps_an_entry_from_being_evicted():
    cache: InMemoryCache[Any] = InMemoryCache(2)

    @cached(cache=cache)
    async def f(n: int) -> int:
        return n

    await f(1)
    await f(2)
    await f(1)
    await f(3)

    assert await cache.exists(f.cache_key(1))
    assert not await cache.exists(f.cache_key(2))


async def test_the_short_way_does_not_grow_without_bound():
    cache: InMemoryCache[Any] = InMemoryCache(10)

    @cached(cache=cache)
    async def f(n: int) -> int:
        return n

    for n in range(1000):
        await f(n)

    aliases = inspect.getclosurevars(f).nonlocals["__aliases"]
    assert len(aliases) <= 20
