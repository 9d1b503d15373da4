"""Misuse: refused with an error that names the argument, before anything is changed."""

import math
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheSerializationError, CacheValueError
from agent_service.infrastructure.cache.interface import MISS, ICache
from agent_service.testing.cache.room import CacheRoom

__all__ = ["CacheRefusals"]


class CacheRefusals(CacheRoom):
    """What every operation refuses."""

    async def test_an_unusable_key_is_refused(self, cache: ICache[Any]) -> None:
        keys: list[Any] = ["", "x" * 8193, "é" * 4097, "\ud800", None, 1, b"bytes"]
        for key in keys:
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

    async def test_an_unusable_ttl_is_refused(self, cache: ICache[Any]) -> None:
        ttls: list[Any] = [math.nan, math.inf, -math.inf, True, "60", 1e300, [1]]
        await cache.set("a", "old")

        for ttl in ttls:
            with pytest.raises(CacheValueError, match="ttl"):
                await cache.set("a", "new", ttl=ttl)
            with pytest.raises(CacheValueError, match="ttl"):
                await cache.expire("a", ttl)
            with pytest.raises(CacheValueError, match="ttl"):
                await cache.increment("n", ttl=ttl)
        assert await cache.get("a") == "old"
        assert await cache.lookup("n") is MISS

    async def test_an_unusable_amount_is_refused(self, cache: ICache[Any]) -> None:
        amounts: list[Any] = [1.5, True, "1", None, 2**63]
        for amount in amounts:
            with pytest.raises(CacheValueError, match="amount"):
                await cache.increment("n", amount)
        assert await cache.lookup("n") is MISS

    async def test_a_value_that_cannot_be_written_is_refused(self, cache: ICache[Any]) -> None:
        await cache.set("a", "old")

        for value in (object(), {"a": [object()]}, "\ud800", lambda: 1):
            with pytest.raises(CacheSerializationError):
                await cache.set("a", value)
            with pytest.raises(CacheSerializationError):
                await cache.set_many({"b": 1, "a": value})
        assert await cache.get_many(["a", "b"]) == {"a": "old"}

    async def test_several_keys_are_wanted_not_one(self, cache: ICache[Any]) -> None:
        given: list[Any] = ["abc", b"abc", None, 5]
        for keys in given:
            with pytest.raises(CacheKeyError, match="keys"):
                await cache.get_many(keys)
            with pytest.raises(CacheKeyError, match="keys"):
                await cache.delete_many(keys)
            with pytest.raises(CacheValueError, match="mapping"):
                await cache.set_many(keys)
