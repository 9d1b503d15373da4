"""Staleness by choice: stale values are served during or instead of a load, never after an invalidation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service.core.errors import LoadTimeoutError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import MISS, ICache
from agent_service.testing.cache.room import SHORT, CacheRoom, Failing, Load, giving, joined, until

__all__ = ["CacheStaleness"]

INVALIDATIONS: dict[str, Callable[[ICache[Any]], Awaitable[object]]] = {
    "delete": lambda cache: cache.delete("a"),
    "delete_many": lambda cache: cache.delete_many(["a", "b"]),
    "pattern": lambda cache: cache.delete_pattern("a*"),
    "expire": lambda cache: cache.set("a", 1, ttl=0),
    "tag": lambda cache: cache.invalidate_tags(["t"]),
    "clear": lambda cache: cache.clear(),
}


class CacheStaleness(CacheRoom):
    """What a call gets that allows stale values."""

    async def _let_it_get_stale(self, cache: ICache[Any], value: Any = "old") -> None:
        await cache.get_or_load("a", giving(value), ttl=SHORT, stale_for=60, tags=["t"])
        await self.advance(2 * SHORT)

    async def test_a_stale_entry_is_missing_to_every_other_operation(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)

        assert await cache.lookup("a") is MISS
        assert await cache.get_many(["a"]) == {}
        assert await cache.exists("a") is False
        assert await cache.ttl("a") is None
        assert [key async for key in cache.scan()] == []
        assert await cache.expire("a", 30) is False
        assert await cache.delete("a") is False

    async def test_a_stale_counter_starts_anew(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache, 100)

        assert await cache.increment("a") == 1
        assert await cache.get("a") == 1

    async def test_an_increment_that_stores_nothing_takes_a_stale_counter_all_the_same(
        self, cache: ICache[Any]
    ) -> None:
        await self._let_it_get_stale(cache, 100)

        assert await cache.increment("a", 5, ttl=0) == 5
        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("away")), stale_for=60)

    async def test_a_stale_entry_is_left_as_it_is_by_what_does_not_find_it(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        for ttl in (NEVER, SHORT):
            assert await cache.expire("a", ttl) is False
        await self.advance(2 * SHORT)

        assert await cache.get_or_load("a", Failing(LookupError("away")), stale_for=60) == "old"

    async def test_a_call_that_does_not_allow_for_it_gets_no_stale_value(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)

        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("away")), soft_timeout=0)
        assert await cache.get_or_load("a", giving("new"), soft_timeout=0) == "new"

    async def test_a_stale_value_is_given_when_the_load_fails(self, cache: ICache[Any], again: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        load = Failing(LookupError("away"))

        for handle in (cache, again):
            given = await handle.get_or_load("a", load, stale_for=60, info=True)
            assert (given.value, given.stale_reason) == ("old", "error")
            assert given.level in self.levels
            assert given.age is not None
            assert given.age > SHORT
        assert load.calls == 2
        assert await cache.lookup("a") is MISS

    async def test_a_stale_value_is_given_when_the_load_is_slow_and_the_load_goes_on(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        load = Load("new")

        given = await cache.get_or_load("a", load, stale_for=60, soft_timeout=0.02, info=True)
        assert (given.value, given.stale_reason) == ("old", "timeout")
        assert await cache.lookup("a") is MISS
        load.finish.set()
        await until(lambda: cache.exists("a"))
        assert await cache.get("a") == "new"
        assert load.calls == 1

    async def test_a_load_that_is_quick_enough_gives_its_own_value(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)

        given = await cache.get_or_load("a", giving("new"), stale_for=60, soft_timeout=10, info=True)

        assert (given.value, given.level, given.stale_reason) == ("new", "load", None)

    async def test_a_soft_timeout_of_zero_gives_the_stale_value_at_once(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        load = Load("new")

        for _ in range(20):
            given = await cache.get_or_load("a", load, stale_for=60, soft_timeout=0, info=True)
            assert (given.value, given.stale_reason) == ("old", "timeout")
        load.finish.set()
        await until(lambda: cache.exists("a"))
        assert await cache.get("a") == "new"
        assert load.calls == 1

    async def test_with_nothing_stale_to_give_a_soft_timeout_waits(self, cache: ICache[Any]) -> None:
        load = Load("new")
        waiting = asyncio.create_task(cache.get_or_load("a", load, stale_for=60, soft_timeout=0))
        await load.started.wait()
        await joined()
        load.finish.set()

        assert await waiting == "new"

    async def test_a_hard_timeout_gives_the_stale_value_where_there_is_one(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        load = Load("never given")

        given = await cache.get_or_load("a", load, stale_for=60, hard_timeout=0.02, info=True)
        assert (given.value, given.stale_reason) == ("old", "timeout")
        await cache.delete("a")
        with pytest.raises(LoadTimeoutError):
            await cache.get_or_load("a", load, stale_for=60, hard_timeout=0.02)

    async def test_a_stale_value_ends_when_its_time_is_over(self, cache: ICache[Any]) -> None:
        await cache.get_or_load("a", giving("old"), ttl=SHORT, stale_for=SHORT)
        await cache.get_or_load("b", giving("old"), ttl=SHORT, stale_for=60)
        await self.advance(3 * SHORT)

        for key, stale_for in {"a": 60.0, "b": SHORT}.items():  # the shorter of the writer's and the reader's
            with pytest.raises(LookupError):
                await cache.get_or_load(key, Failing(LookupError("away")), stale_for=stale_for)

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_a_stale_value_is_not_given_after_an_invalidation(self, cache: ICache[Any], how: str) -> None:
        await self._let_it_get_stale(cache)
        await INVALIDATIONS[how](cache)

        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("away")), stale_for=60, soft_timeout=0)

    # -- refreshing ahead

    async def test_many_hits_begin_one_refresh_and_wait_for_nothing(self, cache: ICache[Any]) -> None:
        options: Any = {"ttl": 60, "refresh_at": SHORT / 60}
        await cache.get_or_load("a", giving("old"), **options)
        early = Load("unused")
        assert await cache.get_or_load("a", early, **(options | {"refresh_at": 0.9})) == "old"
        await self.advance(2 * SHORT)
        load = Load("new")

        for _ in range(20):
            given = await cache.get_or_load("a", load, info=True, **options)
            assert (given.value, given.stale_reason) == ("old", None)
        await load.started.wait()
        load.finish.set()

        async def is_new() -> bool:
            return bool(await cache.get("a") == "new")

        await until(is_new)
        assert (load.calls, early.calls) == (1, 0)

    async def test_a_refresh_that_fails_leaves_the_value(self, cache: ICache[Any]) -> None:
        await cache.get_or_load("a", giving("old"), ttl=60, refresh_at=SHORT / 60)
        await self.advance(2 * SHORT)
        load = Failing(LookupError("away"))

        async def was_called() -> bool:
            return load.calls > 0

        assert await cache.get_or_load("a", load, ttl=60, refresh_at=SHORT / 60) == "old"
        await until(was_called)
        assert await cache.get_or_load("a", load, ttl=60, refresh_at=SHORT / 60) == "old"

    # -- failing for a while

    async def test_after_a_failure_no_load_is_tried_for_a_while(self, cache: ICache[Any]) -> None:
        load = Failing(LookupError("away"))
        for _ in range(3):
            with pytest.raises(LookupError, match="away"):
                await cache.get_or_load("a", load, failure_backoff=60)
        with pytest.raises(LookupError, match="away"):
            await cache.get_or_load("a", giving("unused"))

        assert load.calls == 1
        assert await cache.get_or_load("b", giving("another key")) == "another key"

    async def test_after_the_while_it_is_tried_again(self, cache: ICache[Any]) -> None:
        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("away")), failure_backoff=SHORT)
        await self.advance(2 * SHORT)

        assert await cache.get_or_load("a", giving("back"), failure_backoff=SHORT) == "back"

    async def test_a_stale_value_is_given_as_long_as_no_load_is_tried(self, cache: ICache[Any]) -> None:
        await self._let_it_get_stale(cache)
        load = Failing(LookupError("away"))
        options: Any = {"stale_for": 60, "failure_backoff": 60, "info": True}

        assert (await cache.get_or_load("a", load, **options)).stale_reason == "error"
        given = await cache.get_or_load("a", load, **options)
        assert (given.value, given.stale_reason) == ("old", "backoff")
        assert load.calls == 1

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_an_invalidation_ends_the_waiting_after_a_failure(self, cache: ICache[Any], how: str) -> None:
        with pytest.raises(LookupError):
            await cache.get_or_load("a", Failing(LookupError("away")), failure_backoff=60, tags=["t"])
        await INVALIDATIONS[how](cache)

        assert await cache.get_or_load("a", giving("back"), failure_backoff=60) == "back"
