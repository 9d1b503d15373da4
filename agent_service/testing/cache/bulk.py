"""``get_or_load_many``: one load for many keys, and still one at a time for each."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheSerializationError, CacheValueError, ReentrantLoadError
from agent_service.infrastructure.cache.interface import MISS, ICache
from agent_service.testing.cache.room import CacheRoom, Load, giving, joined

__all__ = ["CacheBulkLoads"]


class LoadMany:
    """A loader of many keys that records its calls; the value of a key is the key followed by ``mark``."""

    def __init__(self, mark: str = "", *, finished: bool = True, without: str = "") -> None:
        self.asked: list[list[str]] = []
        self.mark = mark
        self.without = without
        self.cancelled = False
        self.started = asyncio.Event()
        self.finish = asyncio.Event()
        if finished:
            self.finish.set()

    async def __call__(self, keys: list[str]) -> dict[str, str]:
        self.asked.append(list(keys))
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return {key: key + self.mark for key in keys if key not in self.without}


class CacheBulkLoads(CacheRoom):
    """What happens when many keys are missing at once."""

    async def test_one_load_gives_all_that_is_missing(self, cache: ICache[Any]) -> None:
        load = LoadMany("!")
        await cache.set("b", "hit")

        assert await cache.get_or_load_many(["c", "b", "a", "c"], load) == {"c": "c!", "b": "hit", "a": "a!"}
        assert load.asked == [["c", "a"]]
        assert await cache.get_many(["a", "b", "c"]) == {"a": "a!", "b": "hit", "c": "c!"}
        assert await cache.get_or_load_many(["a", "b"], load) == {"a": "a!", "b": "hit"}
        assert len(load.asked) == 1

    async def test_the_loads_of_no_keys_are_none(self, cache: ICache[Any]) -> None:
        load = LoadMany()

        assert await cache.get_or_load_many([], load) == {}
        assert load.asked == []

    async def test_many_loaded_values_have_the_ttl_that_was_given(self, cache: ICache[Any]) -> None:
        await cache.get_or_load_many(["a", "b"], LoadMany(), ttl=30)

        for key in "ab":
            assert 29 < await cache.ttl(key) <= 30  # type: ignore[operator] # a float

    async def test_many_values_with_a_ttl_of_zero_are_given_and_not_stored(self, cache: ICache[Any]) -> None:
        assert await cache.get_or_load_many(["a", "b"], LoadMany(), ttl=0) == {"a": "a", "b": "b"}
        assert await cache.get_many(["a", "b"]) == {}

    async def test_changing_many_loaded_values_changes_nothing_in_the_cache(self, cache: ICache[Any]) -> None:
        async def load(keys: list[str]) -> dict[str, Any]:
            return {key: {"inner": [1]} for key in keys}

        first: dict[str, Any] = await cache.get_or_load_many(["a"], load)
        first["a"]["inner"].append(2)

        assert await cache.get("a") == {"inner": [1]}

    async def test_a_key_that_the_loader_leaves_out_is_left_out_and_not_stored(self, cache: ICache[Any]) -> None:
        load = LoadMany(without="b")

        assert await cache.get_or_load_many(["a", "b"], load) == {"a": "a"}
        assert await cache.lookup("b") is MISS
        assert await cache.get_or_load_many(["a", "b"], load) == {"a": "a"}
        assert load.asked == [["a", "b"], ["b"]]

    async def test_who_waits_for_a_key_that_many_leave_out_loads_it(self, cache: ICache[Any]) -> None:
        load = LoadMany(finished=False, without="b")
        many = asyncio.create_task(cache.get_or_load_many(["a", "b"], load))
        await load.started.wait()
        one = asyncio.create_task(cache.get_or_load("b", giving("own")))
        await joined()
        load.finish.set()

        assert await many == {"a": "a"}
        assert await one == "own"

    # -- together with other loads

    async def test_keys_that_are_being_loaded_are_not_loaded_again(self, cache: ICache[Any]) -> None:
        one = Load("one")
        first = asyncio.create_task(cache.get_or_load("a", one))
        await one.started.wait()
        load = LoadMany("!", finished=False)
        second = asyncio.create_task(cache.get_or_load_many(["a", "b"], load))
        await load.started.wait()
        other = LoadMany("?")
        third = asyncio.create_task(cache.get_or_load_many(["c", "b", "a"], other))
        fourth = asyncio.create_task(cache.get_or_load("b", giving("unused")))
        await other.started.wait()
        await joined()
        load.finish.set()
        one.finish.set()

        assert await first == "one"
        assert await second == {"a": "one", "b": "b!"}
        assert await third == {"c": "c?", "b": "b!", "a": "one"}
        assert await fourth == "b!"
        assert (load.asked, other.asked) == ([["b"]], [["c"]])

    async def test_the_failure_of_many_is_raised_by_all_who_wait_and_stores_nothing(self, cache: ICache[Any]) -> None:
        started, finish = asyncio.Event(), asyncio.Event()

        async def fail(_keys: list[str]) -> dict[str, Any]:
            started.set()
            await finish.wait()
            raise LookupError("the database is away")

        waiting = [asyncio.create_task(cache.get_or_load_many(["a", "b"], fail))]
        await started.wait()
        waiting.append(asyncio.create_task(cache.get_or_load("b", giving("unused"))))
        waiting.append(asyncio.create_task(cache.get_or_load_many(["a"], LoadMany())))
        await joined()
        finish.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

        assert [type(each) for each in outcomes] == [LookupError] * 3
        assert await cache.get_many(["a", "b"]) == {}
        assert await cache.get_or_load_many(["a", "b"], LoadMany()) == {"a": "a", "b": "b"}

    async def test_a_cancelled_caller_of_many_hurts_nobody(self, cache: ICache[Any]) -> None:
        load = LoadMany(finished=False)
        first = asyncio.create_task(cache.get_or_load_many(["a", "b"], load))
        await load.started.wait()
        second = asyncio.create_task(cache.get_or_load("b", giving("unused")))
        await joined()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        load.finish.set()

        assert await second == "b"
        assert first.cancelled()

    async def test_a_load_of_many_is_cancelled_when_its_last_caller_is(self, cache: ICache[Any]) -> None:
        load = LoadMany(finished=False)
        callers = [asyncio.create_task(cache.get_or_load_many(["a", "b"], load)) for _ in range(2)]
        await load.started.wait()
        await joined()
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        assert await cache.get_or_load_many(["a", "b"], LoadMany("!")) == {"a": "a!", "b": "b!"}
        assert load.cancelled

    @pytest.mark.parametrize("inner", ["one", "many", "another first"])
    async def test_a_loader_of_many_that_asks_for_its_own_keys_is_told_so(self, cache: ICache[Any], inner: str) -> None:
        async def ask(keys: list[str]) -> Mapping[str, Any]:
            if inner == "one":
                await cache.get_or_load("b", giving("unused"))
            else:
                await cache.get_or_load_many(["c", "b"] if inner == "many" else ["d"], through)
            return dict.fromkeys(keys, 1)

        async def through(keys: list[str]) -> Mapping[str, Any]:
            if inner == "another first":
                await cache.get_or_load("a", giving("unused"))
            return dict.fromkeys(keys, 1)

        with pytest.raises(ReentrantLoadError, match="must not ask"):
            await asyncio.wait_for(cache.get_or_load_many(["a", "b"], ask), 5)
        assert await cache.get_many(["a", "b"]) == {}

    async def test_a_loader_that_asks_for_its_own_key_among_many_is_told_so(self, cache: ICache[Any]) -> None:
        async def ask() -> Any:
            return await cache.get_or_load_many(["b", "a"], LoadMany())

        with pytest.raises(ReentrantLoadError, match="'a'"):
            await asyncio.wait_for(cache.get_or_load("a", ask), 5)

    # -- misuse

    async def test_a_loader_of_many_must_give_a_mapping(self, cache: ICache[Any]) -> None:
        results: list[Any] = [["a"], None, "a", 5]

        async def load(_keys: list[str]) -> Any:
            return results[-1]

        while results:
            with pytest.raises(CacheValueError, match="loader must return a mapping"):
                await cache.get_or_load_many(["a", "b"], load)
            assert await cache.get_many(["a", "b"]) == {}
            results.pop()

    async def test_a_loader_of_many_must_be_an_async_function(self, cache: ICache[Any]) -> None:
        loaders: list[Any] = [5, {"a": 1}, lambda keys: dict.fromkeys(keys, 1)]
        for loader in loaders:
            with pytest.raises(CacheValueError, match="loader"):
                await cache.get_or_load_many(["a", "b"], loader)
            assert await cache.get_many(["a", "b"]) == {}

    async def test_a_value_among_many_that_cannot_be_written_is_refused(self, cache: ICache[Any]) -> None:
        async def load(_keys: list[str]) -> dict[str, Any]:
            return {"a": object(), "b": object()}

        with pytest.raises(CacheSerializationError):
            await cache.get_or_load_many(["a", "b"], load)
        assert await cache.get_many(["a", "b"]) == {}

    async def test_unusable_arguments_of_many_are_refused_before_anything_is_loaded(self, cache: ICache[Any]) -> None:
        load = LoadMany()
        refused: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
            ("abc", {}, CacheKeyError, "keys"),
            (["a", ""], {}, CacheKeyError, "key"),
            (["a"], {"ttl": "60"}, CacheValueError, "ttl"),
            (["a"], {"tags": "t"}, CacheKeyError, "tags"),
            (["a"], {"tags": ["t", ""]}, CacheKeyError, "tag"),
        ]

        for keys, options, kind, named in refused:
            with pytest.raises(kind, match=named):
                await cache.get_or_load_many(keys, load, **options)
        assert load.asked == []
