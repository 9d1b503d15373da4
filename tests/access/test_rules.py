"""The access rules that docs/cache.md publishes are enough, and name nothing that is not needed."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from agent_service import get_cache, get_redis_manager
from agent_service.infrastructure.redis.client import RedisClient
from tests.access.everything import use_caches, use_limits, use_manager, use_ops, use_stores, use_tenants
from tests.servers.redis import RedisServer
from tests.support.acl import PASSWORD, USER, documented_rules
from tests.support.waiting import until

Permit = Callable[..., None]


def _denied(server: RedisServer) -> list[Any]:
    return [dict(zip(each[::2], each[1::2], strict=True)) for each in server.cli("ACL", "LOG")]


async def test_the_rule_for_caches_is_enough_for_caches(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"])
    (await get_redis_manager()).metrics.reset()

    await use_caches()
    await use_manager()

    metrics = (await get_redis_manager()).get_metrics()
    assert (metrics["breaker"], metrics["denied"], metrics["journal_length"], metrics["l1"]) == (
        "closed",
        None,
        0,
        "live",
    )
    assert metrics["metrics"]["users:errors"] == 0
    assert [key for key in server.cli("KEYS", "*") if not key.startswith(b"agent_service:")] == []


async def test_the_rules_for_caches_and_for_limits_are_enough_for_limits(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"], *documented_rules()["limits"])

    await use_limits()
    await use_caches()


async def test_the_rule_for_everything_is_enough_for_everything(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["service"])

    await use_caches()
    await use_limits()
    await use_manager()
    await use_tenants()
    await use_stores()
    await use_ops()

    metrics = (await get_redis_manager()).get_metrics()
    assert (metrics["breaker"], metrics["denied"], metrics["l1"]) == ("closed", None, "live")
    prefixes = (b"agent_service:", b"agent_service%tenant:", b"dynagent_ctx_", b"agent_state_")
    assert [key for key in server.cli("KEYS", "*") if not key.startswith(prefixes)] == []


async def test_only_old_names_are_ever_refused_to_the_documented_user_and_once(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["service"])
    server.cli("ACL", "LOG", "RESET")

    await use_caches()
    await use_tenants()
    await use_stores()
    before = len(_denied(server))
    await use_caches()

    refused = {each[b"object"] for each in _denied(server) if each[b"reason"] == b"key"}
    assert all(name.startswith((b"agent_service%", b"%fence:")) for name in refused), refused
    assert len(_denied(server)) == before


async def test_a_process_of_the_documented_user_gets_through_an_outage(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"], CACHE_BREAKER_OPEN_SECONDS="0.05", REDIS_TIMEOUT="0.2")
    cache = await get_cache("users")
    await cache.set("k", 1)

    manager = await get_redis_manager()
    server.stop()
    await asyncio.gather(*(cache.get("k") for _ in range(3)))
    await cache.delete("k")
    server.cont()
    async with asyncio.timeout(60):
        while manager.get_metrics()["breaker"] != "closed":
            await cache.get("other")
            await asyncio.sleep(0.005)

    assert await cache.get("k") is None
    assert manager.get_metrics()["denied"] is None


async def test_caches_send_no_command_that_the_rule_for_caches_does_not_name(
    server: RedisServer, use: Callable[..., None]
):
    server.cli("FLUSHALL")
    use(server.url)
    sent: set[str] = set()
    watching, stop = threading.Event(), threading.Event()

    def watch() -> None:
        connection = redis.Redis(port=server.port)
        with connection.monitor() as monitor:
            watching.set()
            while not stop.is_set():
                words = monitor.next_command()["command"].upper().split()
                sent.add(f"{words[0]} {words[1]}" if words[0] == "CLIENT" else words[0])
        connection.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    await asyncio.to_thread(watching.wait)
    await use_caches()
    await use_manager()
    stop.set()
    server.cli("PING")
    await asyncio.to_thread(thread.join)

    named = {word[1:].upper().replace("|", " ") for word in documented_rules()["cache"] if word.startswith("+")}
    asked = {"CLIENT SETINFO", "AUTH"}  # redis-py does without these
    assert sent - named - asked == set()
    assert {"EVALSHA", "SCAN", "PTTL"} <= sent


@pytest.mark.parametrize("prefix", ["app", "app:one", "p%q", "äö"])
async def test_the_pattern_holds_for_any_prefix(prefix: str, as_user: Permit, server: RedisServer):
    escaped = prefix.replace("%", "%25").replace(":", "%3A")
    rules = [f"~{escaped}:*" if rule.startswith("~") else rule for rule in documented_rules()["cache"]]
    as_user(*rules, CACHE_KEY_PREFIX=prefix)

    await use_caches()
    await use_manager()

    assert [key for key in server.cli("KEYS", "*") if not key.startswith(f"{escaped}:".encode())] == []


async def test_bookkeeping_is_out_of_reach_of_names_and_patterns(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"])
    cache, manager = await get_cache("users"), await get_redis_manager()
    await cache.set("k", 1, tags=["t"])
    load = asyncio.create_task(cache.get_or_load("slow", asyncio.Event().wait))
    await until(lambda: server.cli("KEYS", "agent_service:%lease:*") != [])
    before = sorted(server.cli("KEYS", "agent_service:%*"))

    listed = await manager.scan_keys("*"), await manager.scan_keys("%*"), [key async for key in cache.scan("*")]
    removed = await manager.delete_by_pattern("%*"), await cache.delete_pattern("%*")

    assert listed == (["users:k"], [], ["k"])
    assert removed == (0, 0)
    assert sorted(server.cli("KEYS", "agent_service:%*")) == before
    assert await manager.delete_by_pattern("*") == 1
    assert sorted(server.cli("KEYS", "agent_service:%*")) == before
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)


async def test_a_namespace_and_a_key_named_like_bookkeeping_are_ordinary(as_user: Permit):
    as_user(*documented_rules()["cache"])
    cache = await get_cache("%token")

    await cache.set("%lease:x", 1)

    assert [key async for key in cache.scan("*")] == ["%lease:x"]
    assert await (await get_redis_manager()).scan_keys("*") == ["%25token:%lease:x"]
    assert await cache.delete_pattern("*") == 1


async def test_a_client_of_the_user_reads_what_the_rule_permits(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"])
    client = RedisClient(server.url.replace("redis://", f"redis://{USER}:{PASSWORD}@"))

    assert await client.get(b"agent_service:users:none") is None

    await client.aclose()
