"""Counters."""

import asyncio
from typing import Any

import pytest

from agent_service.core.errors import CacheValueError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import ICache
from agent_service.testing.cache.room import CacheRoom

__all__ = ["CacheCounters"]


class CacheCounters(CacheRoom):
    """What ``increment`` does."""

    async def test_a_counter_starts_at_zero(self, cache: ICache[Any]) -> None:
        assert await cache.increment("n") == 1
        assert await cache.increment("n", 5) == 6
        assert await cache.increment("n", -10) == -4
        assert await cache.get("n") == -4

    async def test_a_number_that_was_set_can_be_incremented(self, cache: ICache[Any]) -> None:
        await cache.set("n", 41)

        assert await cache.increment("n") == 42

    async def test_a_new_counter_gets_a_ttl_and_an_old_one_keeps_its_own(self, cache: ICache[Any]) -> None:
        await cache.increment("default")
        await cache.increment("given", ttl=30)
        await cache.increment("given", ttl=500)
        await cache.set("never", 1, ttl=NEVER)
        await cache.increment("never", ttl=30)

        assert isinstance(await cache.ttl("default"), float)
        assert 29 < await cache.ttl("given") <= 30  # type: ignore[operator] # a float
        assert await cache.ttl("never") is NEVER

    async def test_only_an_integer_can_be_incremented(self, cache: ICache[Any]) -> None:
        values: list[Any] = ["1", 1.0, True, None, [1], 2**63]
        for value in values:
            await cache.set("n", value)

            with pytest.raises(CacheValueError, match="n"):
                await cache.increment("n")
            assert await cache.get("n") == value

    async def test_a_counter_does_not_leave_64_bits(self, cache: ICache[Any]) -> None:
        await cache.set("n", 2**63 - 1)

        with pytest.raises(CacheValueError):
            await cache.increment("n")
        assert await cache.get("n") == 2**63 - 1

    async def test_concurrent_increments_all_count(self, cache: ICache[Any]) -> None:
        numbers = await asyncio.gather(*(cache.increment("n") for _ in range(100)))

        assert sorted(numbers) == list(range(1, 101))

    async def test_concurrent_increments_of_a_cache_that_was_just_cleared_all_count(self, cache: ICache[Any]) -> None:
        for number in range(20):
            await cache.clear()
            numbers = await asyncio.gather(*(cache.increment(f"n{number}") for _ in range(20)))

            assert sorted(numbers) == list(range(1, 21))
