"""Counters in Redis whose tags take more bytes than the first look reads."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient

TAGS = [f"a tag with a rather long name, number {number}" for number in range(40)]


@pytest.fixture
async def cache(client: RedisClient) -> AsyncIterator[RedisCache[Any]]:
    cache: RedisCache[Any] = RedisCache(client, namespace="n")
    yield cache
    await cache.aclose()


async def test_a_number_with_many_tags_is_added_to_and_keeps_them(cache: RedisCache[Any]):
    await cache.set("n", 5, ttl=60, tags=TAGS)

    assert [await cache.increment("n", 2), await cache.increment("n", -1)] == [7, 6]
    assert await cache.get("n") == 6
    await cache.invalidate_tags(TAGS[-1:])
    assert await cache.get("n") is None


@pytest.mark.parametrize("tag", [TAGS[0], TAGS[-1]])
async def test_a_number_with_many_tags_starts_anew_when_one_of_them_was_invalidated(cache: RedisCache[Any], tag: str):
    await cache.set("n", 5, ttl=60, tags=TAGS)
    await cache.invalidate_tags([tag])

    assert await cache.increment("n", 2) == 2
    assert await cache.get("n") == 2


async def test_what_is_no_number_and_has_many_tags_is_refused_and_stays(cache: RedisCache[Any]):
    await cache.set("text", "x" * 1_000, ttl=60, tags=TAGS)

    with pytest.raises(ValueError, match="no integer"):
        await cache.increment("text")
    assert await cache.get("text") == "x" * 1_000
