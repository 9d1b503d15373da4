"""Reading, writing, time to live and patterns."""

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache
from agent_service.testing.cache.room import SHORT, CacheRoom

__all__ = ["CacheBasics"]

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

PATTERNS: dict[str, set[str]] = {
    "a*": {"a", "ab", "a*", "a[b]"},
    "a?": {"ab", "a*"},
    r"a\*": {"a*"},
    "a[b]": {"ab"},
    r"a\[b]": {"a[b]"},
    "[^a]*": {"b", "é"},
    "??": {"ab", "a*", "é"},
    "*": {"a", "ab", "a*", "a[b]", "b", "é"},
    "nothing": set(),
}
"""Patterns, and which of the keys of their test they match."""


class CacheBasics(CacheRoom):
    """A cache reads and writes like a dictionary whose values expire."""

    async def test_a_missing_key_is_a_miss(self, cache: ICache[Any]) -> None:
        assert await cache.lookup("a") is MISS
        assert await cache.get("a") is None
        assert await cache.get("a", "default") == "default"
        assert await cache.exists("a") is False
        assert await cache.ttl("a") is None
        assert await cache.get_many(["a", "b"]) == {}

    async def test_a_value_comes_back_with_its_type(self, cache: ICache[Any]) -> None:
        for value in VALUES:
            assert await cache.set("a", value) is True

            found = await cache.lookup("a")

            assert isinstance(found, Hit), repr(value)
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

    async def test_a_ttl_of_zero_or_less_stores_nothing_and_removes(self, cache: ICache[Any]) -> None:
        for ttl in (0, -1, -0.5, timedelta(seconds=-3)):
            await cache.set("a", "old")

            assert await cache.set("a", "new", ttl=ttl) is False
            assert await cache.lookup("a") is MISS

    async def test_expire_changes_the_ttl_of_an_entry(self, cache: ICache[Any]) -> None:
        await cache.set("never", 1, ttl=NEVER)

        assert await cache.expire("missing", 30) is False
        assert await cache.expire("never", 30) is True
        assert 29 < await cache.ttl("never") <= 30  # type: ignore[operator] # a float
        assert await cache.expire("never", NEVER) is True
        assert await cache.ttl("never") is NEVER
        assert await cache.get("never") == 1

    async def test_expire_with_zero_or_less_deletes(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1)

        assert await cache.expire("a", 0) is True
        assert await cache.expire("a", -1) is False
        assert await cache.lookup("a") is MISS

    # -- patterns

    async def test_scan_gives_each_matching_key_once(self, cache: ICache[Any]) -> None:
        await cache.set_many({f"user:{n}": n for n in range(50)} | {"other": 1})

        keys = [key async for key in cache.scan("user:*")]

        assert sorted(keys) == sorted(f"user:{n}" for n in range(50))
        assert len([key async for key in cache.scan()]) == 51

    async def test_delete_pattern_follows_redis(self, cache: ICache[Any]) -> None:
        keys = {"a", "ab", "a*", "a[b]", "b", "é"}
        for pattern, gone in PATTERNS.items():
            await cache.set_many(dict.fromkeys(keys, 1))

            assert await cache.delete_pattern(pattern) == len(gone), pattern
            assert {key async for key in cache.scan()} == keys - gone, pattern

    async def test_clear_removes_everything(self, cache: ICache[Any]) -> None:
        await cache.set_many({"a": 1, "b": 2})
        await cache.clear()

        assert [key async for key in cache.scan()] == []
