"""The typed commands, on a real server."""

import math
from collections.abc import AsyncIterator

import pytest

from agent_service.core.errors import RecordValueError, RedisCommandError, RedisUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis import ops
from agent_service.infrastructure.redis.factory import close_redis


@pytest.fixture(autouse=True)
async def house(redis_url: str, monkeypatch: pytest.MonkeyPatch, nothing_left: None) -> AsyncIterator[None]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    yield
    await close_redis()


async def test_strings_are_set_read_and_deleted():
    assert await ops.get("a") is None
    assert await ops.set("a", "text")
    assert await ops.set("b", 7, ttl=60)
    assert not await ops.set("a", "other", only_if_missing=True)

    assert await ops.get_many(["a", "none", "b"]) == [b"text", None, b"7"]
    assert await ops.exists("a")
    assert await ops.delete("a", "none") == 1


async def test_times_to_live_are_seconds():
    await ops.set("a", "x", ttl=0.5)
    assert 0 < (await ops.ttl("a") or 0) <= 0.5
    assert await ops.ttl("none") is None
    await ops.set("forever", "x")
    assert await ops.ttl("forever") == math.inf

    assert await ops.expire("forever", 60)
    assert not await ops.expire("none", 60)

    assert 59 < (await ops.ttl("forever") or 0) <= 60
    for ttl in (0, -1, math.inf, math.nan):
        with pytest.raises(RecordValueError, match="time to live"):
            await ops.set("a", "x", ttl=ttl)


async def test_counters_count():
    assert [await ops.increment("n"), await ops.increment("n", 5), await ops.increment("n", -10)] == [1, 6, -4]


async def test_hashes_are_set_with_their_time_to_live():
    assert await ops.hash_set("h", {"a": 1, "b": "x"}, ttl=60) == 2
    assert await ops.hash_increment("h", "a", 2) == 3

    assert await ops.hash_get("h", "a") == b"3"
    assert await ops.hash_get_all("h") == {b"a": b"3", b"b": b"x"}
    assert await ops.hash_delete("h", "a", "none") == 1
    assert 59 < (await ops.ttl("h") or 0) <= 60


async def test_lists_are_appended_read_and_trimmed():
    assert await ops.list_append("l", "a", "b", "c") == 3
    await ops.list_trim("l", 1, -1)

    assert await ops.list_range("l") == [b"b", b"c"]
    assert await ops.list_range("l", 0, 0) == [b"b"]
    assert await ops.list_length("l") == 2


async def test_errors_are_raised(monkeypatch: pytest.MonkeyPatch):
    await ops.set("text", "x")
    with pytest.raises(RedisCommandError, match="WRONGTYPE"):
        await ops.list_length("text")
    await close_redis()
    monkeypatch.delenv("REDIS_URL")
    reset_settings()

    with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
        await ops.get("a")
