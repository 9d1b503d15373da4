"""Repositories and ``ops`` find the live runtime's Redis on every event loop, not only on the runtime's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from agent_service.context import RedisContextStore
from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import RedisUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import close_cache, get_cache
from agent_service.infrastructure.redis import ops
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.runtime import AgentRuntime, GlobalSymphonyConfig
from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    RedisTrigger,
    RedisUser,
    TriggerRunner,
    current_shared_state,
    shared_state_scope,
)
from tests.servers.redis import RedisServer

Job = Callable[[], Awaitable[Any]]


async def bound_state_set() -> None:
    with shared_state_scope("acme", "ann"):
        await current_shared_state.get().set("s", {"a": 1})


WRITES: dict[str, Job] = {
    "user": lambda: RedisUser("acme", "ann").upsert({"a": 1}),
    "state": lambda: RedisStateHandler("acme", "ann").set("s", {"a": 1}),
    "table": lambda: RedisTable("acme").set("t", "k", {"a": 1}),
    "shared state": lambda: RedisSharedState("acme", "ann").set("s", {"a": 1}),
    "bound shared state": bound_state_set,
    "generic": lambda: RedisGeneric("acme").set("k", 1),
    "batch": lambda: RedisBatch("acme").enqueue("s", "e", "a", 1),
    "trigger": lambda: RedisTrigger("acme").set("a", "i", 60),
    "ops": lambda: ops.set("k", 1),
    "ops in a pipeline": lambda: ops.hash_set("h", {"a": 1}, ttl=60),
}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """The server of REDIS_URL, which is not the runtime's."""
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("REDIS_TIMEOUT", "10")
        reset_settings()
        yield server


@pytest.fixture
async def elsewhere() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]]:
    """Runs a coroutine on another loop, that of a thread of its own."""
    bridge = SyncBridge()

    async def run(call: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.to_thread(bridge.run, call)

    yield run
    await run(close_redis())
    bridge.close()


async def awaited(job: Job) -> Any:
    return await job()


def keys_of(server: RedisServer) -> list[bytes]:
    keys: list[bytes] = server.cli("KEYS", "*")
    return keys


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_write_on_a_threads_own_loop_reaches_the_runtimes_server(
    write: Job, other: RedisServer, own_redis: RedisServer
):
    async def in_the_thread() -> None:
        await write()
        await close_redis()

    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
        await asyncio.to_thread(lambda: asyncio.run(in_the_thread()))

    assert keys_of(other) == []
    assert keys_of(own_redis) != []


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_write_on_the_runtimes_own_loop_reaches_its_server(
    write: Job, other: RedisServer, own_redis: RedisServer
):
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
        await write()

    assert keys_of(other) == []
    assert keys_of(own_redis) != []


async def test_loops_share_one_connection_pool_each_and_give_it_back(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    async def manager_of(source: Job) -> Any:
        return (await source()).client

    async def twice() -> None:
        for _ in range(50):
            await ops.increment("n")

    before = own_redis.cli("CLIENT", "LIST").count(b"\n")
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
        await elsewhere(twice())
        await twice()
        during = own_redis.cli("CLIENT", "LIST").count(b"\n")

    assert own_redis.cli("GET", "n") == b"100"
    assert during - before <= 3  # two loops, and what the start asked
    own_redis.wait_until("clients", "connected_clients:1")


async def test_a_runner_on_a_threads_own_loop_serves_the_runtimes_triggers(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    async def metrics_of_a_look() -> dict[str, Any]:
        async with TriggerRunner() as runner:
            while not runner.metrics()["unhandled"]:
                await asyncio.sleep(0.005)
            return runner.metrics()["unhandled"]  # type: ignore[no-any-return]

    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
        await RedisTrigger("acme").set("nobody handles this", "i", 0.001)

        assert await elsewhere(metrics_of_a_look()) == {"nobody handles this": 1}


async def test_after_the_runtime_the_settings_say_again_and_a_new_runtime_has_its_own(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    with RedisServer() as third:
        async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
            await elsewhere(awaited(lambda: ops.set("k", "first")))
        await elsewhere(awaited(lambda: ops.set("k", "settings")))
        async with AgentRuntime(GlobalSymphonyConfig(redis_url=third.url)):
            await elsewhere(awaited(lambda: ops.set("k", "second")))

        assert [each.cli("GET", "k") for each in (own_redis, other, third)] == [b"first", b"settings", b"second"]


async def test_closing_on_one_loop_leaves_the_runtimes_own_connections(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)) as runtime:
        await elsewhere(awaited(lambda: ops.set("k", 1)))
        await elsewhere(close_redis())
        await close_redis()
        await elsewhere(awaited(lambda: ops.increment("k")))

        assert await ops.get("k") == b"2"
        assert not runtime.redis.closed


async def test_prefix_and_timeout_are_those_of_the_runtimes_manager(own_redis: RedisServer, elsewhere: Any):
    redis = RedisManager(own_redis.url, prefix="shop", timeout=7)
    async with AgentRuntime(redis=redis):
        await elsewhere(awaited(lambda: RedisGeneric("acme").set("k", 1)))
    await redis.aclose()

    assert [each.startswith(b"shop%tenant:") for each in keys_of(own_redis)] == [True]


async def test_a_given_client_that_tells_no_address_is_a_clear_error_elsewhere(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    base = RedisClient(own_redis.url, timeout=10)
    redis = RedisManager(None, client=RedisClient.over(base.raw, timeout=10))
    async with AgentRuntime(redis=redis):
        for write in WRITES.values():
            await write()
            with pytest.raises(RedisUnavailableError, match="bridge"):
                await elsewhere(awaited(write))
    await base.aclose()

    assert keys_of(other) == []


async def test_a_runtime_without_redis_has_none_on_any_loop(elsewhere: Any):
    async with AgentRuntime(GlobalSymphonyConfig()):
        for write in WRITES.values():
            with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
                await write()
            with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
                await elsewhere(awaited(write))


async def test_what_is_documented_to_use_redis_url_does_so_on_every_loop(
    other: RedisServer, own_redis: RedisServer, elsewhere: Any
):
    async def cache_it(key: str) -> None:
        await (await get_cache()).set(key, 1)
        await close_cache()

    async with AgentRuntime(GlobalSymphonyConfig(redis_url=own_redis.url)):
        await cache_it("here")
        await elsewhere(cache_it("there"))
        await RedisContextStore().set("here", {"a": 1})
        await elsewhere(RedisContextStore().set("there", {"a": 1}))
        assert await (await get_redis_manager()).mset({"plain": "1"})
        await close_redis()

    assert keys_of(own_redis) == []
    assert len([key for key in keys_of(other) if b"here" in key or b"plain" in key]) == 5
