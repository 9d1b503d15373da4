"""``get_or_load``: one load for all callers, whatever happens to one of them."""

import asyncio
from typing import Any

import pytest

from agent_service.core.errors import (
    CacheSerializationError,
    CacheValueError,
    LoadTimeoutError,
    ReentrantLoadError,
)
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache, Loaded
from agent_service.testing.cache.room import SHORT, CacheRoom, Failing, Load, giving, joined

__all__ = ["CacheLoads"]


class CacheLoads(CacheRoom):
    """What happens on a miss."""

    async def test_get_or_load_loads_once_and_then_hits(self, cache: ICache[Any]) -> None:
        load = giving({"n": 1})
        first = await cache.get_or_load("a", load, ttl=60)
        first["n"] = 99

        assert await cache.get_or_load("a", load) == {"n": 1}
        assert load.calls == 1

    async def test_a_loaded_none_is_stored(self, cache: ICache[Any]) -> None:
        assert await cache.get_or_load("a", giving(None)) is None
        assert await cache.lookup("a") == Hit(None)

    async def test_where_a_value_comes_from_is_told_when_asked(self, cache: ICache[Any]) -> None:
        loaded = await cache.get_or_load("a", giving([1]), info=True)
        await self.advance(SHORT)
        hit = await cache.get_or_load("a", giving("unused"), info=True)

        assert loaded == Loaded([1], "load", 0.0, None)
        assert (hit.value, hit.stale_reason) == ([1], None)
        assert hit.level in self.levels
        assert hit.age is not None
        assert SHORT / 2 < hit.age < 60

    async def test_concurrent_callers_share_one_load(self, cache: ICache[Any]) -> None:
        load = Load([1])
        callers = [asyncio.create_task(cache.get_or_load("a", load, info=True)) for _ in range(50)]
        await load.started.wait()
        await joined()
        load.finish.set()
        results = await asyncio.gather(*callers)
        results[0].value.append(2)

        assert load.calls == 1
        assert results[1] == Loaded([1], "load", 0.0, None)
        assert await cache.get("a") == [1]

    async def test_a_failed_load_is_shared_and_stores_nothing(self, cache: ICache[Any]) -> None:
        calls = 0

        async def load() -> None:
            nonlocal calls
            calls += 1
            await joined()
            raise LookupError("no such user")

        results = await asyncio.gather(*(cache.get_or_load("a", load) for _ in range(20)), return_exceptions=True)

        assert calls == 1
        assert all(isinstance(each, LookupError) for each in results)
        assert len({id(each) for each in results}) == 20
        assert await cache.lookup("a") is MISS

    async def test_a_failed_load_is_not_remembered(self, cache: ICache[Any]) -> None:
        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("no such user")))

        assert await cache.get_or_load("a", giving("value")) == "value"

    async def test_a_cancelled_caller_hurts_nobody(self, cache: ICache[Any]) -> None:
        load = Load("value")
        first = asyncio.create_task(cache.get_or_load("a", load))
        others = [asyncio.create_task(cache.get_or_load("a", load)) for _ in range(3)]
        await load.started.wait()
        await joined()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        load.finish.set()

        assert await asyncio.gather(*others) == ["value"] * 3
        assert first.cancelled()

    async def test_a_load_is_cancelled_when_its_last_caller_is(self, cache: ICache[Any]) -> None:
        load = Load("never given")
        callers = [asyncio.create_task(cache.get_or_load("a", load)) for _ in range(2)]
        await load.started.wait()
        await joined()
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        assert await cache.get_or_load("a", giving("fresh")) == "fresh"
        assert load.cancelled

    async def test_a_load_takes_no_longer_than_its_hard_timeout(self, cache: ICache[Any]) -> None:
        load = Load("never given")

        with pytest.raises(LoadTimeoutError, match=r"'a'.*0\.05 s") as caught:
            await cache.get_or_load("a", load, hard_timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        assert await cache.get_or_load("a", giving("fresh")) == "fresh"
        assert load.cancelled

    async def test_a_hard_timeout_is_the_caller_s_own(self, cache: ICache[Any]) -> None:
        load = Load("value")
        patient = asyncio.create_task(cache.get_or_load("a", load))
        await load.started.wait()

        with pytest.raises(LoadTimeoutError):
            await cache.get_or_load("a", load, hard_timeout=0.02)
        load.finish.set()
        assert await patient == "value"
        assert await cache.get_or_load("a", Load("unused"), hard_timeout=0.02) == "value"

    async def test_a_timeout_of_the_loader_is_a_failure_like_any_other(self, cache: ICache[Any]) -> None:
        with pytest.raises(TimeoutError, match="the database") as caught:
            await cache.get_or_load("a", Failing(TimeoutError("the database")), hard_timeout=10)
        assert not isinstance(caught.value, LoadTimeoutError)

    async def test_a_loader_that_asks_for_its_own_key_is_told_so(self, cache: ICache[Any]) -> None:
        async def outer() -> Any:
            return await cache.get_or_load("b", inner)

        async def inner() -> Any:
            return await cache.get_or_load("a", outer)

        with pytest.raises(ReentrantLoadError, match="'a'"):
            await asyncio.wait_for(cache.get_or_load("a", outer), 5)
        assert await cache.get_many(["a", "b"]) == {}

    async def test_a_loader_may_ask_for_other_keys(self, cache: ICache[Any]) -> None:
        async def outer() -> Any:
            return [await cache.get_or_load("b", giving("inner"))]

        assert await cache.get_or_load("a", outer) == ["inner"]
        assert await cache.get_many(["a", "b"]) == {"a": ["inner"], "b": "inner"}

    async def test_a_loader_must_be_an_async_function(self, cache: ICache[Any]) -> None:
        loaders: list[Any] = [5, lambda: 5]
        for loader in loaders:
            with pytest.raises(CacheValueError, match="loader"):
                await cache.get_or_load("a", loader)
            assert await cache.lookup("a") is MISS

    async def test_a_loaded_value_that_cannot_be_written_is_refused(self, cache: ICache[Any]) -> None:
        with pytest.raises(CacheSerializationError):
            await cache.get_or_load("a", giving(object()))
        assert await cache.lookup("a") is MISS
