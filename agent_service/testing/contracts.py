"""Contract test classes: inherit one, say what to test, and pytest proves that a backend of yours keeps the contract.

::

    class TestMyCache(CacheContract):
        @pytest.fixture
        async def cache(self):
            async with make_my_cache() as cache:
                yield cache

Needs pytest and pytest-asyncio in its ``auto`` mode.
"""

import asyncio
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from agent_service.core.errors import (
    CacheKeyError,
    CacheSerializationError,
    CacheValueError,
    ReentrantLoadError,
)
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache

__all__ = ["CacheContract"]

SHORT = 0.06
"""Seconds; long enough for an operation on a loaded machine, short enough to wait for."""

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**40,
    1.0,
    -0.0,
    1e308,
    math.inf,
    "",
    "1",
    "true",
    "null",
    "é\u0000\U0001f600",
    b"",
    b"\x00\xff",
    [],
    {},
    [1, [2, {"a": None}]],
    {"a": 1, "b": [True, False, None]},
    {"$datetime": "not a date", "$": {}},
    {1: "int key", (2, 3): "tuple key", None: "none key"},
    (1, "2", (3,)),
    {1, 2, 3},
    frozenset({"a"}),
    datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC),
    datetime(2026, 11, 21, 12, 30),  # noqa: DTZ001 - a naive datetime stays naive
    date(2026, 11, 21),
    time(12, 30),
    timedelta(days=14, microseconds=1),
    Decimal("1.10"),
    UUID(int=7),
]


class CacheContract:
    """What every :class:`ICache` does. ``cache`` is an empty one."""

    @pytest.fixture
    async def cache(self) -> ICache[Any]:
        """Give an empty cache whose default TTL is at least a minute."""
        raise NotImplementedError("override the fixture `cache`")

    async def advance(self, seconds: float) -> None:
        """Let time pass for the cache; overridden where a clock can be moved."""
        await asyncio.sleep(seconds)

    # -- reading and writing

    async def test_a_missing_key_is_a_miss(self, cache: ICache[Any]) -> None:
        assert await cache.lookup("a") is MISS
        assert await cache.get("a") is None
        assert await cache.get("a", "default") == "default"
        assert await cache.exists("a") is False
        assert await cache.ttl("a") is None
        assert await cache.get_many(["a", "b"]) == {}

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    async def test_a_value_comes_back_with_its_type(self, cache: ICache[Any], value: Any) -> None:
        assert await cache.set("a", value) is True

        found = await cache.lookup("a")

        assert isinstance(found, Hit)
        assert found.value == value
        assert type(found.value) is type(value)
        assert repr(found.value) == repr(value)

    async def test_none_is_a_value(self, cache: ICache[Any]) -> None:
        await cache.set("a", None)

        assert await cache.lookup("a") == Hit(None)
        assert await cache.get("a", "default") is None
        assert await cache.exists("a") is True
        assert await cache.get_many(["a"]) == {"a": None}

    async def test_a_write_replaces(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1)
        await cache.set("a", [2])

        assert await cache.get("a") == [2]

    async def test_changing_a_value_changes_nothing_in_the_cache(self, cache: ICache[Any]) -> None:
        stored = {"inner": [1]}
        await cache.set("a", stored)
        stored["inner"].append(2)
        read: Any = await cache.get("a")
        read["inner"].append(3)
        many: dict[str, Any] = await cache.get_many(["a"])
        many["a"]["inner"].append(4)

        assert await cache.get("a") == {"inner": [1]}

    async def test_deleting_says_whether_there_was_an_entry(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1)

        assert await cache.delete("a") is True
        assert await cache.delete("a") is False
        assert await cache.lookup("a") is MISS

    async def test_many_keys_at_once(self, cache: ICache[Any]) -> None:
        assert await cache.set_many({"a": 1, "b": None, "c": [3]}) is True

        assert await cache.get_many(["c", "a", "missing", "a", "b"]) == {"a": 1, "b": None, "c": [3]}
        assert await cache.delete_many(["a", "b", "missing", "a"]) == 2
        assert await cache.get_many(["a", "b", "c"]) == {"c": [3]}

    async def test_many_of_nothing_is_nothing(self, cache: ICache[Any]) -> None:
        assert await cache.get_many([]) == {}
        assert await cache.set_many({}) is True
        assert await cache.delete_many([]) == 0

    # -- time

    async def test_an_entry_expires(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1, ttl=SHORT)
        await cache.set("b", 1, ttl=timedelta(seconds=SHORT))
        await cache.set("stays", 1, ttl=60)
        await self.advance(SHORT * 2)

        assert await cache.lookup("a") is MISS
        assert await cache.exists("b") is False
        assert await cache.expire("a", 60) is False
        assert await cache.delete("b") is False
        assert [key async for key in cache.scan()] == ["stays"]

    async def test_ttl_tells_the_seconds_left(self, cache: ICache[Any]) -> None:
        await cache.set("default", 1)
        await cache.set("given", 1, ttl=30)
        await cache.set("never", 1, ttl=NEVER)
        left = await cache.ttl("given")
        default = await cache.ttl("default")

        assert isinstance(left, float)
        assert 29 < left <= 30
        assert isinstance(default, float)
        assert default > 30
        assert await cache.ttl("never") is NEVER

    @pytest.mark.parametrize("ttl", [0, -1, -0.5, timedelta(seconds=-3)])
    async def test_a_ttl_of_zero_or_less_stores_nothing_and_removes(self, cache: ICache[Any], ttl: Any) -> None:
        await cache.set("a", "old")

        assert await cache.set("a", "new", ttl=ttl) is False
        assert await cache.lookup("a") is MISS

    async def test_expire_changes_the_ttl_of_an_entry(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1, ttl=NEVER)

        assert await cache.expire("missing", 30) is False
        assert await cache.expire("a", 30) is True
        assert 29 < await cache.ttl("a") <= 30  # type: ignore[operator] # a float
        assert await cache.expire("a", NEVER) is True
        assert await cache.ttl("a") is NEVER
        assert await cache.get("a") == 1

    async def test_expire_with_zero_or_less_deletes(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1)

        assert await cache.expire("a", 0) is True
        assert await cache.expire("a", -1) is False
        assert await cache.lookup("a") is MISS

    # -- counters

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

    @pytest.mark.parametrize("value", ["1", 1.0, True, None, [1], 2**63])
    async def test_only_an_integer_can_be_incremented(self, cache: ICache[Any], value: Any) -> None:
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

    async def test_concurrent_increments_after_a_clear_all_count(self, cache: ICache[Any]) -> None:
        await asyncio.gather(*(cache.increment("n") for _ in range(100)))
        await cache.clear()
        numbers = await asyncio.gather(*(cache.increment("n") for _ in range(100)))

        assert sorted(numbers) == list(range(1, 101))

    # -- patterns

    async def test_scan_gives_each_matching_key_once(self, cache: ICache[Any]) -> None:
        await cache.set_many({f"user:{n}": n for n in range(50)} | {"other": 1})

        keys = [key async for key in cache.scan("user:*")]

        assert sorted(keys) == sorted(f"user:{n}" for n in range(50))
        assert len([key async for key in cache.scan()]) == 51

    @pytest.mark.parametrize(
        ("pattern", "gone"),
        [
            ("a*", {"a", "ab", "a*", "a[b]"}),
            ("a?", {"ab", "a*"}),
            (r"a\*", {"a*"}),
            ("a[b]", {"ab"}),
            (r"a\[b]", {"a[b]"}),
            ("[^a]*", {"b", "é"}),
            ("??", {"ab", "a*", "é"}),
            ("*", {"a", "ab", "a*", "a[b]", "b", "é"}),
            ("nothing", set()),
        ],
    )
    async def test_delete_pattern_follows_redis(self, cache: ICache[Any], pattern: str, gone: set[str]) -> None:
        keys = {"a", "ab", "a*", "a[b]", "b", "é"}
        await cache.set_many(dict.fromkeys(keys, 1))

        assert await cache.delete_pattern(pattern) == len(gone)
        assert {key async for key in cache.scan()} == keys - gone

    async def test_clear_removes_everything(self, cache: ICache[Any]) -> None:
        await cache.set_many({"a": 1, "b": 2})
        await cache.clear()

        assert [key async for key in cache.scan()] == []

    # -- misuse changes nothing

    @pytest.mark.parametrize("key", ["", "x" * 8193, "é" * 4097, "\ud800", None, 1, b"bytes"])
    async def test_an_unusable_key_is_refused(self, cache: ICache[Any], key: Any) -> None:
        for call in (cache.get, cache.lookup, cache.delete, cache.exists, cache.ttl, cache.increment):
            with pytest.raises(CacheKeyError, match="key"):
                await call(key)
        with pytest.raises(CacheKeyError, match="key"):
            await cache.set_many({"good": 1, key: 2})
        with pytest.raises(CacheKeyError, match="pattern"):
            await cache.delete_pattern(key)
        assert await cache.lookup("good") is MISS

    async def test_the_longest_key_works(self, cache: ICache[Any]) -> None:
        await cache.set("x" * 8192, 1)

        assert await cache.get("x" * 8192) == 1

    @pytest.mark.parametrize("ttl", [math.nan, math.inf, -math.inf, True, "60", 1e300, [1]])
    async def test_an_unusable_ttl_is_refused(self, cache: ICache[Any], ttl: Any) -> None:
        await cache.set("a", "old")

        with pytest.raises(CacheValueError, match="ttl"):
            await cache.set("a", "new", ttl=ttl)
        with pytest.raises(CacheValueError, match="ttl"):
            await cache.expire("a", ttl)
        with pytest.raises(CacheValueError, match="ttl"):
            await cache.increment("n", ttl=ttl)
        assert await cache.get("a") == "old"
        assert await cache.lookup("n") is MISS

    @pytest.mark.parametrize("amount", [1.5, True, "1", None, 2**63])
    async def test_an_unusable_amount_is_refused(self, cache: ICache[Any], amount: Any) -> None:
        with pytest.raises(CacheValueError, match="amount"):
            await cache.increment("n", amount)
        assert await cache.lookup("n") is MISS

    @pytest.mark.parametrize(
        "value", [object(), {"a": [object()]}, "\ud800", lambda: 1], ids=["object", "deep", "text", "f"]
    )
    async def test_a_value_that_cannot_be_written_is_refused(self, cache: ICache[Any], value: Any) -> None:
        await cache.set("a", "old")

        with pytest.raises(CacheSerializationError):
            await cache.set("a", value)
        with pytest.raises(CacheSerializationError):
            await cache.set_many({"b": 1, "a": value})
        assert await cache.get_many(["a", "b"]) == {"a": "old"}

    # -- loads

    async def test_get_or_load_loads_once_and_then_hits(self, cache: ICache[Any]) -> None:
        calls = 0

        async def load() -> dict[str, int]:
            nonlocal calls
            calls += 1
            return {"n": calls}

        first = await cache.get_or_load("a", load, ttl=60)
        first["n"] = 99

        assert await cache.get_or_load("a", load) == {"n": 1}
        assert calls == 1

    async def test_a_loaded_none_is_stored(self, cache: ICache[Any]) -> None:
        async def load() -> None:
            return None

        assert await cache.get_or_load("a", load) is None
        assert await cache.lookup("a") == Hit(None)

    async def test_concurrent_callers_share_one_load(self, cache: ICache[Any]) -> None:
        calls = 0

        async def load() -> list[int]:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.02)
            return [calls]

        results = await asyncio.gather(*(cache.get_or_load("a", load) for _ in range(50)))
        results[0].append(2)

        assert calls == 1
        assert results[1] == [1]
        assert await cache.get("a") == [1]

    async def test_a_failed_load_is_shared_and_stores_nothing(self, cache: ICache[Any]) -> None:
        calls = 0

        async def load() -> None:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.02)
            raise LookupError("no such user")

        results = await asyncio.gather(*(cache.get_or_load("a", load) for _ in range(20)), return_exceptions=True)

        assert calls == 1
        assert all(isinstance(each, LookupError) for each in results)
        assert len({id(each) for each in results}) == 20
        assert await cache.lookup("a") is MISS

    async def test_a_cancelled_caller_hurts_nobody(self, cache: ICache[Any]) -> None:
        started = asyncio.Event()
        finish = asyncio.Event()

        async def load() -> str:
            started.set()
            await finish.wait()
            return "value"

        first = asyncio.create_task(cache.get_or_load("a", load))
        others = [asyncio.create_task(cache.get_or_load("a", load)) for _ in range(3)]
        await started.wait()
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        finish.set()

        assert await asyncio.gather(*others) == ["value"] * 3
        assert first.cancelled()

    async def test_a_load_is_cancelled_when_its_last_caller_is(self, cache: ICache[Any]) -> None:
        started = asyncio.Event()
        cancelled = asyncio.Event()

        async def load() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        callers = [asyncio.create_task(cache.get_or_load("a", load)) for _ in range(2)]
        await started.wait()
        await asyncio.sleep(0.02)
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        await asyncio.wait_for(cancelled.wait(), 1)
        assert await cache.get_or_load("a", self._loader("fresh")) == "fresh"

    @pytest.mark.parametrize("how", ["delete", "delete_many", "set", "pattern", "clear"])
    async def test_what_was_invalidated_while_loading_is_not_served_afterwards(
        self, cache: ICache[Any], how: str
    ) -> None:
        started = asyncio.Event()
        finish = asyncio.Event()

        async def load_old() -> str:
            started.set()
            await finish.wait()
            return "old"

        early = asyncio.create_task(cache.get_or_load("a", load_old))
        await started.wait()
        match how:
            case "delete":
                await cache.delete("a")
            case "delete_many":
                await cache.delete_many(["b", "a"])
            case "set":
                await cache.set("a", "new")
            case "pattern":
                await cache.delete_pattern("a*")
            case _:
                await cache.clear()
        late = await cache.get_or_load("a", self._loader("new"))
        finish.set()

        assert await early == "old"
        assert late == "new"
        assert await cache.get("a") == "new"

    async def test_a_loader_that_asks_for_its_own_key_is_told_so(self, cache: ICache[Any]) -> None:
        async def outer() -> Any:
            return await cache.get_or_load("b", inner)

        async def inner() -> Any:
            return await cache.get_or_load("a", outer)

        with pytest.raises(ReentrantLoadError, match="'a'"):
            await asyncio.wait_for(cache.get_or_load("a", outer), 5)
        assert await cache.get_many(["a", "b"]) == {}

    @pytest.mark.parametrize("loader", [5, lambda: 5])
    async def test_a_loader_must_be_an_async_function(self, cache: ICache[Any], loader: Any) -> None:
        with pytest.raises(CacheValueError, match="loader"):
            await cache.get_or_load("a", loader)
        assert await cache.lookup("a") is MISS

    @pytest.mark.parametrize("keys", ["abc", b"abc", None, 5])
    async def test_several_keys_are_wanted_not_one(self, cache: ICache[Any], keys: Any) -> None:
        with pytest.raises(CacheKeyError, match="keys"):
            await cache.get_many(keys)
        with pytest.raises(CacheKeyError, match="keys"):
            await cache.delete_many(keys)
        with pytest.raises(CacheValueError, match="mapping"):
            await cache.set_many(keys)

    async def test_a_loaded_value_that_cannot_be_written_is_refused(self, cache: ICache[Any]) -> None:
        with pytest.raises(CacheSerializationError):
            await cache.get_or_load("a", self._loader(object()))
        assert await cache.lookup("a") is MISS

    @staticmethod
    def _loader(value: Any) -> Any:
        async def load() -> Any:
            return value

        return load
