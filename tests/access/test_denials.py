"""A server that denies a command, a key or the login: said once, stable, visible, and over when it is permitted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service import NEVER, RedisDeniedError, get_cache, get_redis_manager
from agent_service.context.redis import RedisContextStore
from agent_service.core.errors import ContextStoreError
from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.tenants import RedisUser
from tests.access.conftest import Use
from tests.servers.redis import RedisServer
from tests.support.acl import PASSWORD, USER, documented_rules

Permit = Callable[..., None]

QUICK = {"CACHE_BREAKER_OPEN_SECONDS": "0.01"}
COMMANDS = [rule[1:] for rule in documented_rules()["cache"] if rule.startswith("+")]
NOT_FOR_CACHES = {"mset", "select"}
FOR_COPIES_ONLY = {"hello", "client|tracking", "watch", "multi", "exists", "exec"}
AFTER_AN_OUTAGE_ONLY = {"client|info", "client|kill"}
DONE_WITHOUT = {"unlink", "evalsha", "scan", "info", "ping"}
NEEDED = [
    each for each in COMMANDS if each not in NOT_FOR_CACHES | FOR_COPIES_ONLY | AFTER_AN_OUTAGE_ONLY | DONE_WITHOUT
]


def without(*commands: str) -> list[str]:
    """The documented rule for caches, less these commands."""
    return [rule for rule in documented_rules()["cache"] if rule[1:] not in commands or rule[0] != "+"]


async def exercise(cache: ICache[Any], rounds: int = 8) -> None:
    """Use a cache in every way; nothing is raised, and no read returns what was removed."""
    for number in range(rounds):
        await cache.set("k", number, tags=["t"])
        assert await cache.get("k") in (number, None)
        assert (await cache.get_many(["k", "l"])).get("k") in (number, None)
        await cache.exists("k")
        await cache.ttl("k")
        await cache.expire("k", 60)
        await cache.increment("n")
        await cache.set("never", number, ttl=NEVER)
        await cache.expire("never", NEVER)
        assert await cache.get_or_load("stale", lambda: _value(7), stale_for=60) == 7
        await cache.expire("stale", 50)
        assert await cache.get_or_load("load", lambda: _value(7), lock="distributed") == 7
        assert await cache.get_or_load_many(["many"], lambda keys: _values(keys)) == {"many": 7}
        assert {key async for key in cache.scan("*")} <= {"k", "n", "never", "stale", "load", "many"}
        await _removals(cache)[number % 4]()
        assert await cache.get("k") is None
        await cache.set("k", number, tags=["t"])
        await cache.invalidate_tags(["t"])
        assert await cache.get("k") is None
        await asyncio.sleep(0.002)  # a recovery may run


async def permitted(cache: ICache[Any]) -> None:
    """Let operations come until Redis serves."""
    manager = await get_redis_manager()
    async with asyncio.timeout(60):
        while manager.get_metrics()["breaker"] != "closed":
            await cache.get("other")
            await asyncio.sleep(0.005)


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("command", NEEDED)
async def test_without_a_command_that_is_needed_memory_serves_until_it_is_permitted(
    command: str, as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    as_user(*without(command), **QUICK)
    cache, manager = await get_cache("users"), await get_redis_manager()

    await exercise(cache)

    metrics, health = manager.get_metrics(), await manager.health_check()
    assert metrics["breaker"] != "closed"
    assert metrics["journal_length"] <= 1
    assert command.upper() in metrics["denied"]
    assert f"+{command}" in metrics["denied"]
    assert not health["ok"]
    assert command.upper() in health["error"]
    assert "agent_service:*" in health["error"]
    assert [command.upper() in each for each in errors_in(caplog)] == [True]
    assert not any("does not serve" in each for each in warnings_in(caplog))

    as_user(*documented_rules()["cache"], **QUICK)
    await permitted(cache)

    assert await cache.set("k", 1)
    assert server.cli("EXISTS", "agent_service:users:k") == 1
    assert manager.get_metrics()["denied"] is None
    assert (await manager.health_check())["ok"]


@pytest.mark.parametrize("command", sorted(DONE_WITHOUT))
async def test_without_a_command_that_is_not_needed_redis_serves_and_the_loss_is_said_once(
    command: str, as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    as_user(*without(command), **QUICK)
    cache, manager = await get_cache("users"), await get_redis_manager()

    await exercise(cache)
    await manager.health_check()
    await manager.health_check()
    await exercise(cache, 3)

    health = await manager.health_check()
    assert manager.get_metrics()["breaker"] == "closed"
    assert (health["ok"], health["error"]) == (True, None)
    assert [command.upper() in each for each in health["limits"]] == [True]
    assert [command.upper() in each for each in warnings_in(caplog)] == [True]
    assert await cache.set("k", 1)
    assert server.cli("EXISTS", "agent_service:users:k") == 1


@pytest.mark.parametrize("command", sorted(FOR_COPIES_ONLY | AFTER_AN_OUTAGE_ONLY))
async def test_without_what_only_copies_or_outages_need_redis_serves(
    command: str, as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    as_user(*without(command), **QUICK)
    cache, manager = await get_cache("users", l1=True), await get_redis_manager()

    await exercise(cache)
    async with asyncio.timeout(60):
        while manager.get_metrics()["l1"] == "connecting":
            await asyncio.sleep(0.005)
    await exercise(cache, 3)

    permitted_anyway = command == "hello" or command in AFTER_AN_OUTAGE_ONLY  # HELLO to whoever may log in
    assert manager.get_metrics()["breaker"] == "closed"
    assert manager.get_metrics()["l1"] == ("live" if permitted_anyway else "unsupported")
    assert len(warnings_in(caplog)) == (not permitted_anyway), warnings_in(caplog)
    assert (await manager.health_check())["ok"]


@pytest.mark.parametrize("command", ["client|info", "client|kill"])
async def test_that_late_commands_cannot_be_dropped_is_said_once_and_the_outage_ends(
    command: str, as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    as_user(*without(command), **QUICK, REDIS_TIMEOUT="0.1")
    cache = await get_cache("users")
    await cache.set("k", 1)

    for _ in range(2):
        server.stop()
        await cache.delete("k")
        server.cont()
        await permitted(cache)

    assert await cache.get("k") is None
    said = [each for each in warnings_in(caplog) if "may still run" in each]
    assert [command.upper().replace("|", " ") in each for each in said] == [True]
    assert (await (await get_redis_manager()).health_check())["limits"] == said


@pytest.mark.parametrize(
    "keys",
    [
        ["~other:*"],
        [],
        ["~agent_service%*"],
        ["~agent_service:users:*"],
        ["~agent_service:%*"],
        ["~agent_service:%*", "~agent_service:users:[a-j]*"],
    ],
)
async def test_without_some_or_all_keys_memory_serves_until_they_are_permitted(
    keys: list[str], as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    commands = [rule for rule in documented_rules()["cache"] if not rule.startswith("~")]
    as_user(*commands, *keys, **QUICK)
    cache, manager = await get_cache("users"), await get_redis_manager()

    await exercise(cache)

    assert manager.get_metrics()["breaker"] != "closed"
    assert manager.get_metrics()["journal_length"] <= 1
    assert "agent_service:*" in manager.get_metrics()["denied"]
    assert ["agent_service:*" in each for each in errors_in(caplog)] == [True]

    as_user(*commands, "~agent_service:*", **QUICK)
    await permitted(cache)

    assert await cache.set("k", 1)
    assert server.cli("EXISTS", "agent_service:users:k") == 1
    assert manager.get_metrics()["denied"] is None


async def test_a_wrong_password_is_said_once_and_heals_when_the_server_takes_it(
    as_user: Permit, server: RedisServer, use: Use, caplog: pytest.LogCaptureFixture
):
    as_user(*documented_rules()["cache"])
    use(server.url.replace("redis://", f"redis://{USER}:another@"), **QUICK)
    cache, manager = await get_cache("users"), await get_redis_manager()

    await exercise(cache)
    health = await manager.health_check()

    assert manager.get_metrics()["breaker"] != "closed"
    assert not health["ok"]
    assert "login" in health["error"]
    assert "another" not in health["error"]
    assert ["login" in each for each in errors_in(caplog)] == [True]
    server.cli("ACL", "SETUSER", USER, ">another")
    await permitted(cache)
    assert (await manager.health_check())["ok"]


async def test_a_server_that_asks_for_a_password_that_is_not_in_the_url_is_told_from_an_outage(
    server: RedisServer, use: Use, caplog: pytest.LogCaptureFixture
):
    with RedisServer(password=PASSWORD) as closed:
        use(f"redis://127.0.0.1:{closed.port}", **QUICK)
        cache, manager = await get_cache("users"), await get_redis_manager()

        await exercise(cache)

        assert "login" in manager.get_metrics()["denied"]
        assert len(errors_in(caplog)) == 1
        await cache.aclose()


async def test_what_was_written_and_removed_while_denied_is_not_read_from_redis_afterwards(
    as_user: Permit, server: RedisServer
):
    as_user(*documented_rules()["cache"], **QUICK)
    cache = await get_cache("users")
    await cache.set_many({"gone": 1, "old": 1})
    as_user(*without("mget"), **QUICK)
    await cache.get("gone")

    await cache.delete("gone")
    await cache.set("old", 2)
    assert await cache.get("old") == 2
    as_user(*documented_rules()["cache"], **QUICK)
    await permitted(cache)

    assert await cache.get_many(["gone", "old"]) == {}


async def test_a_denial_that_begins_during_an_outage_is_said_and_healed(
    as_user: Permit, server: RedisServer, caplog: pytest.LogCaptureFixture
):
    as_user(*documented_rules()["cache"], **QUICK, REDIS_TIMEOUT="0.1")
    cache, manager = await get_cache("users"), await get_redis_manager()
    await cache.set("k", 1)
    server.stop()
    await cache.delete("k")
    server.cont()
    as_user(*documented_rules()["cache"], "-set", "-eval", "-evalsha", **QUICK, REDIS_TIMEOUT="0.1")

    async with asyncio.timeout(60):
        while not errors_in(caplog):
            await cache.get("k")
            await asyncio.sleep(0.005)
    await exercise(cache, 3)

    assert ["SET" in each and "EVAL" in each for each in errors_in(caplog)] == [True]
    as_user(*documented_rules()["cache"], **QUICK, REDIS_TIMEOUT="0.1")
    await permitted(cache)
    assert await cache.get("k") is None
    assert manager.get_metrics()["denied"] is None


async def test_a_pattern_without_scan_empties_the_namespace_rather_than_leave_what_matches(
    as_user: Permit, server: RedisServer
):
    as_user(*documented_rules()["cache"], "-scan", **QUICK)
    cache, other = await get_cache("users"), await get_cache("others")
    await cache.set_many({"a": 1, "b": 2})
    await other.set("a", 3)

    removed = await cache.delete_pattern("a*")

    assert removed == 0
    assert await cache.get_many(["a", "b"]) == {}
    assert await other.get("a") == 3


async def test_the_manager_raises_an_error_that_names_command_and_keys(as_user: Permit):
    as_user(*documented_rules()["cache"], "-mget", "-scan")
    manager = await get_redis_manager()

    with pytest.raises(RedisDeniedError, match="MGET") as command:
        await manager.mget(["users:1"])
    with pytest.raises(RedisDeniedError, match="SCAN"):
        await manager.scan_keys("*")
    as_user("~other:*", "+@all")
    with pytest.raises(RedisDeniedError, match=r"agent_service:\*.*MGET") as key:
        await manager.mget(["users:1"])
    with pytest.raises(RedisDeniedError, match=r"agent_service:\*.*MSET"):
        await manager.mset({"users:1": "x"})

    assert (command.value.lacks, key.value.lacks) == ("command", "key")
    assert command.value.__cause__ is not None


async def test_stores_and_tenants_raise_what_names_the_denied_command(as_user: Permit):
    as_user(*documented_rules()["service"], "-hgetall", "-eval", "-evalsha")
    store = RedisContextStore()

    with pytest.raises(ContextStoreError, match="HGETALL") as reading:
        await store.get("k")
    with pytest.raises(ContextStoreError, match="EVAL"):
        await store.set("k", {})
    with pytest.raises(RedisDeniedError, match="EVAL"):
        await RedisUser("acme", "ann").upsert({"a": 1})

    assert isinstance(reading.value.__cause__, RedisDeniedError)


async def test_health_tells_what_is_missing_before_any_cache_is_used(as_user: Permit, server: RedisServer):
    as_user(*documented_rules()["cache"], "-eval", "-evalsha", "-getrange")
    manager = RedisManager(server.url.replace("redis://", f"redis://{USER}:{PASSWORD}@"))

    health = await manager.health_check()

    assert not health["ok"]
    assert all(name in health["error"] for name in ("EVAL", "EVALSHA", "GETRANGE"))
    assert health["version"] is not None
    await manager.aclose()


RENAMED = ["EVAL", "EVALSHA", "UNLINK", "SCAN", "CLIENT", "GETRANGE", "PTTL", "MGET", "HELLO", "PING", "SET", "DEL"]


@pytest.mark.parametrize("command", RENAMED)
async def test_a_server_that_does_not_know_a_command_is_used_without_it_or_not_at_all(
    command: str, use: Use, caplog: pytest.LogCaptureFixture
):
    with RedisServer(("rename-command", f'{command} ""')) as limited:
        use(limited.url, **QUICK)
        cache, manager = await get_cache("users", l1=True), await get_redis_manager()

        await exercise(cache)
        health = await manager.health_check()

        serves = manager.get_metrics()["breaker"] == "closed"
        assert serves == (command in {"EVALSHA", "UNLINK", "SCAN", "CLIENT", "HELLO", "PING"})
        assert health["ok"] == serves
        assert (health["error"] is None) == serves
        assert serves or command in health["error"]
        assert len(errors_in(caplog)) == (not serves), errors_in(caplog)
        assert manager.get_metrics()["journal_length"] <= 1
        await cache.aclose()


async def test_where_a_command_is_renamed_no_permission_is_advised_for_it(use: Use, caplog: pytest.LogCaptureFixture):
    with RedisServer(("rename-command", 'EVAL ""'), ("rename-command", "GETRANGE other")) as limited:
        limited.cli("ACL", "SETUSER", "default", "-pttl")
        use(limited.url, **QUICK)
        cache, manager = await get_cache("users"), await get_redis_manager()
        await exercise(cache)

        health = await manager.health_check()

        assert "does not know the commands GETRANGE, EVAL" in health["error"]
        assert "denies this user the command PTTL; permit it" in health["error"]
        assert health["error"].endswith(" ~agent_service:* +pttl")
        assert health["error"] in errors_in(caplog)[0]
        await cache.aclose()


async def test_a_server_without_scripts_costs_ever_fewer_questions(use: Use, caplog: pytest.LogCaptureFixture):
    with RedisServer(("rename-command", 'EVAL ""'), ("rename-command", 'EVALSHA ""')) as limited:
        use(limited.url, CACHE_BREAKER_OPEN_SECONDS="30")
        cache, manager = await get_cache("users"), await get_redis_manager()
        await exercise(cache, 2)
        before = limited.cli("INFO", "commandstats")

        await exercise(cache, 20)

        assert [line for line in limited.cli("INFO", "commandstats").splitlines() if b"mget" in line] == [
            line for line in before.splitlines() if b"mget" in line
        ]
        assert (await manager.health_check())["ok"] is False
        assert len(errors_in(caplog)) == 1
        await cache.aclose()


def _removals(cache: ICache[Any]) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: cache.delete("k"),
        lambda: cache.delete_many(["k", "l"]),
        lambda: cache.delete_pattern("[k]*"),
        cache.clear,
    ]


async def _value(value: int) -> int:
    return value


async def _values(keys: Any) -> dict[str, int]:
    return dict.fromkeys(keys, 7)
