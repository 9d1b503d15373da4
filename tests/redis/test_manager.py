"""RedisManager: names, patterns, metrics and health."""

import asyncio
import re
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheValueError, RedisUnavailableError
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from tests.keys import physical_key
from tests.servers.redis import RedisServer


async def put(manager: RedisManager, namespace: str, *keys: str) -> None:
    """Write entries where a cache writes them."""
    await manager.client.set_many({physical_key(manager.prefix, namespace, key): b"1" for key in keys})


async def test_mset_and_mget_take_names_and_strings(manager: RedisManager):
    assert await manager.mset({"key1": "value1", "key2": "Käse", "key3": ""}) is True

    assert await manager.mget(["key2", "nothing", "key1", "key3", "key1"]) == ["Käse", None, "value1", "", "value1"]


async def test_nothing_to_do_is_no_error(manager: RedisManager):
    assert await manager.mget([]) == []
    assert await manager.mset({}) is True
    assert await manager.delete_by_pattern("nothing:*") == 0
    assert await manager.scan_keys("nothing:*") == []


async def test_a_name_is_the_text_after_the_prefix(manager: RedisManager):
    await put(manager, "users", "user:123")

    assert await manager.scan_keys("users:*") == ["users:user:123"]
    assert await manager.mget(["users:user:123"]) == ["1"]


async def test_entries_of_the_default_namespace_are_found_with_and_without_it(manager: RedisManager):
    await put(manager, "", "users:get_user:1", "temp:1")
    await put(manager, "users", "get_user:2")

    assert sorted(await manager.scan_keys("users:get_user:*")) == ["default:users:get_user:1", "users:get_user:2"]
    assert await manager.scan_keys("default:temp:*") == ["default:temp:1"]
    assert sorted(await manager.scan_keys("*_user:?")) == ["default:users:get_user:1", "users:get_user:2"]


async def test_scanning_gives_each_name_once_over_many_pages(manager: RedisManager):
    keys = [f"key:{number}" for number in range(2000)]
    await put(manager, "", *keys)

    names = await manager.scan_keys("*", count=10)

    assert sorted(names) == sorted(f"default:{key}" for key in keys)


async def test_other_prefixes_and_bookkeeping_are_not_seen(manager: RedisManager):
    other = RedisManager(None, client=manager.client, prefix=f"{manager.prefix}_2")
    await put(manager, "", "mine")
    await put(other, "", "theirs")
    await manager.client.set_many({b"agent_service%lock:x": b"1", b"bare": b"1", b"agent_service:\xff": b"1"})

    assert await manager.scan_keys("*") == ["default:mine"]


@pytest.mark.parametrize("prefix", ["a*", "[ab]", "a?c", "back\\slash", "a:b", "50%", "^-"])
async def test_a_prefix_matches_only_itself(client: RedisClient, prefix: str):
    manager = RedisManager(None, client=client, prefix=prefix)
    await put(manager, "", "mine")
    for similar in ("ab", "a", "b", "abc", "a%b", "axc", "backslash", "50"):
        await put(RedisManager(None, client=client, prefix=similar), "", "theirs")

    assert await manager.scan_keys("*") == ["default:mine"]
    assert await manager.delete_by_pattern("*") == 1


async def test_delete_by_pattern_counts_what_was_there(manager: RedisManager):
    await put(manager, "", *(f"temp:{number}" for number in range(2500)), "kept")
    await put(manager, "temp", *(f"{number}" for number in range(500)))

    assert await manager.delete_by_pattern("temp:*") == 3000
    assert await manager.scan_keys("*") == ["default:kept"]


async def test_delete_by_pattern_takes_redis_globs(manager: RedisManager):
    await put(manager, "", "a1", "a2", "b1", "ab", "a*")

    assert await manager.delete_by_pattern("a[0-9]") == 2
    assert await manager.delete_by_pattern(r"a\*") == 1
    assert await manager.delete_by_pattern("[^a]1") == 1
    assert await manager.scan_keys("*") == ["default:ab"]


@pytest.mark.parametrize("pattern", ["", None, b"temp:*", "x" * 10_000, "\ud800"])
async def test_a_pattern_that_cannot_be_used_is_refused(manager: RedisManager, pattern: Any):
    await put(manager, "", "kept")

    with pytest.raises(CacheKeyError, match="pattern"):
        await manager.delete_by_pattern(pattern)
    with pytest.raises(CacheKeyError, match="pattern"):
        await manager.scan_keys(pattern)

    assert await manager.scan_keys("*") == ["default:kept"]


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "10"])
async def test_a_count_that_cannot_be_used_is_refused(manager: RedisManager, count: Any):
    with pytest.raises(CacheValueError, match="count"):
        await manager.scan_keys("*", count=count)


@pytest.mark.parametrize("value", [1, None, b"bytes", {"a": 1}, "\ud800"])
async def test_mset_stores_strings_only_and_all_or_nothing(manager: RedisManager, value: Any):
    with pytest.raises(CacheValueError, match="'bad'"):
        await manager.mset({"good": "1", "bad": value})

    assert await manager.mget(["good", "bad"]) == [None, None]


@pytest.mark.parametrize(
    "value",
    ["text", {"a": 1}, 7, None, b"bytes", "\x01", "x" * 10_000],
    ids=["text", "dict", "int", "None", "bytes", "control character", "long text"],
)
async def test_mget_refuses_an_entry_of_a_cache_by_name_and_gives_the_others(
    manager: RedisManager, value: Any, caplog: pytest.LogCaptureFixture
):
    await RedisCache[Any](manager.client, prefix=manager.prefix, namespace="users").set("1", value)
    await manager.mset({"plain": "text", "users:2": "\x01 text of somebody else"})
    names = ["plain", "users:1", "missing", "users:2"]

    assert await manager.mget(names) == ["text", None, None, "\x01 text of somebody else"]
    (record,) = [each for each in caplog.records if "mget" in each.getMessage()]
    assert "'users:1'" in record.getMessage()
    assert "get_cache(namespace).get(key)" in record.getMessage()


@pytest.mark.parametrize("keys", ["abc", b"abc", None, 5])
async def test_mget_refuses_what_is_not_several_names(manager: RedisManager, keys: Any):
    with pytest.raises(CacheKeyError, match=r"names must be several names, got .*; put it in a list"):
        await manager.mget(keys)


async def test_mget_takes_names_from_a_generator(manager: RedisManager):
    await manager.mset({"a": "1", "b": "2"})

    assert await manager.mget(name for name in ["b", "a"]) == ["2", "1"]


@pytest.mark.parametrize("mapping", ["ab", ["ab"], None, [("a", "1")]])
async def test_mset_refuses_what_is_no_mapping(manager: RedisManager, mapping: Any):
    with pytest.raises(CacheValueError, match=r"mapping must map names to strings, not .*; pass a dict"):
        await manager.mset(mapping)


async def test_mget_of_bytes_and_of_other_types_gives_the_others(
    manager: RedisManager, caplog: pytest.LogCaptureFixture
):
    await manager.client.set_many({physical_key(manager.prefix, "", "a"): b"\xff"})
    await manager.client.execute("HSET", physical_key(manager.prefix, "", "hash"), "field", 1)
    await manager.mset({"plain": "text"})

    assert await manager.mget(["default:a", "default:hash", "plain"]) == [None, None, "text"]
    assert ["'default:a'" in each.getMessage() for each in caplog.records] == [True]


async def test_metrics_have_the_documented_shape_before_anything_happened(manager: RedisManager):
    metrics = manager.get_metrics()

    assert metrics["hit_rate"] == 0.0
    assert (metrics["metrics"]["default:hits"], metrics["metrics"]["default:misses"]) == (0, 0)
    assert manager.get_hit_rate() == 0.0
    assert {"last_reset", "uptime_seconds", "latency"} <= set(metrics)


async def test_hit_rates_are_percentages_per_namespace_and_overall():
    metrics = CacheMetrics()
    manager = RedisManager(None, metrics=metrics)
    metrics.namespace("").hits += 1
    metrics.namespace("users").misses += 3

    assert manager.get_hit_rate() == 100.0
    assert manager.get_hit_rate(namespace="users") == 0.0
    assert manager.get_metrics()["hit_rate"] == 25.0


async def test_health_tells_latency_and_version(manager: RedisManager):
    assert manager.is_available is False

    health = await manager.health_check()

    assert (health["ok"], health["configured"], health["error"]) == (True, True, None)
    assert health["latency_ms"] > 0
    assert int(health["version"].split(".")[0]) >= 6
    assert manager.is_available is True


async def test_health_of_a_dead_server_is_told_and_not_raised(own_redis: RedisServer):
    manager = RedisManager(own_redis.url)
    await manager.client.ping()
    own_redis.kill()

    health = await manager.health_check()

    assert (health["ok"], health["configured"], health["version"]) == (False, True, None)
    assert "unavailable" in health["error"]
    assert manager.is_available is False
    await manager.aclose()


async def test_without_a_url_every_command_says_what_to_set_and_metrics_work():
    manager = RedisManager(None)
    commands = [
        manager.scan_keys("*"),
        manager.mget(["a"]),
        manager.mset({"a": "b"}),
        manager.delete_by_pattern("*"),
    ]

    for command in commands:
        with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
            await command
    health = await manager.health_check()

    assert (health["ok"], health["configured"]) == (False, False)
    assert not manager.is_available
    assert not manager.is_configured
    assert manager.get_metrics()["hit_rate"] == 0.0
    await manager.aclose()


async def test_a_given_client_stays_open(client: RedisClient):
    manager = RedisManager(None, client=client)
    await manager.aclose()

    await client.ping()


async def test_an_outage_in_the_middle_of_a_deletion_is_an_error_and_leaves_nothing_running(own_redis: RedisServer):
    manager = RedisManager(own_redis.url, timeout=2)
    await put(manager, "", *(f"temp:{number}" for number in range(20_000)))
    deleting = asyncio.create_task(manager.delete_by_pattern("temp:*"))
    await asyncio.sleep(0.005)
    own_redis.kill()

    with pytest.raises(RedisUnavailableError):
        await deleting

    await manager.aclose()


async def test_deleting_many_keys_never_holds_the_server_long(own_redis: RedisServer):
    manager = RedisManager(own_redis.url, timeout=5)
    await put(manager, "", *(f"temp:{number}" for number in range(20_000)))
    own_redis.cli("CONFIG", "RESETSTAT")

    assert await manager.delete_by_pattern("temp:*") == 20_000
    stats = own_redis.cli("INFO", "commandstats").decode()
    calls = {name: int(number) for name, number in re.findall(r"cmdstat_(\w+):calls=(\d+)", stats)}
    assert calls["unlink"] >= 10  # at most 2,000 keys at a time
    assert calls["scan"] >= 10
    await manager.aclose()
