"""The life of a runtime: one a process, failed starts leave nothing, the end comes in time."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import (
    BridgeError,
    ConfigurationError,
    RedisCommandError,
    RedisUnavailableError,
    RuntimeStateError,
)
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.runtime import AgentRuntime, GlobalSymphony, GlobalSymphonyConfig
from agent_service.tenants.shared_state import RedisSharedState
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.leftovers import pool_threads
from tests.support.waiting import ticking, until

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
def config(redis_url: str) -> GlobalSymphonyConfig:
    return GlobalSymphonyConfig(redis_url=redis_url)


# -- one a process


async def test_create_gives_a_runtime_that_every_thread_gets(config: GlobalSymphonyConfig):
    runtime = await GlobalSymphony.create(config)

    assert GlobalSymphony is AgentRuntime
    assert runtime.loop is asyncio.get_running_loop()
    assert AgentRuntime.get() is runtime
    assert await asyncio.to_thread(GlobalSymphony.get) is runtime


async def test_create_again_with_an_equal_config_gives_the_same(config: GlobalSymphonyConfig, redis_url: str):
    runtimes = await asyncio.gather(*(AgentRuntime.create(config) for _ in range(20)))

    assert len({id(each) for each in runtimes}) == 1
    assert await AgentRuntime.create(GlobalSymphonyConfig(redis_url=redis_url)) is runtimes[0]


async def test_create_with_another_config_raises_and_names_no_password(config: GlobalSymphonyConfig, redis_url: str):
    runtime = await AgentRuntime.create(config)

    with pytest.raises(RuntimeStateError, match="workers_tool=7"):
        await AgentRuntime.create(GlobalSymphonyConfig(redis_url=redis_url, workers_tool=7))
    with pytest.raises(RuntimeStateError, match="another config") as caught:
        await AgentRuntime.create(GlobalSymphonyConfig(redis_url="redis://:hidden@127.0.0.1:1/0"))
    with pytest.raises(RuntimeStateError, match="another redis"):
        await AgentRuntime.create(config, redis=RedisManager(redis_url))

    assert "hidden" not in str(caught.value)
    assert AgentRuntime.get() is runtime


async def test_before_create_and_after_shutdown_there_is_none(config: GlobalSymphonyConfig):
    with pytest.raises(RuntimeError, match="there is no runtime"):
        AgentRuntime.get()
    await AgentRuntime.create(config)
    await AgentRuntime.shutdown()
    await AgentRuntime.shutdown()

    with pytest.raises(RuntimeStateError, match="there is no runtime"):
        AgentRuntime.get()


async def test_after_a_shutdown_another_can_be_created(config: GlobalSymphonyConfig):
    first = await AgentRuntime.create(config)
    ending = asyncio.create_task(AgentRuntime.shutdown())
    await asyncio.sleep(0)

    second = await AgentRuntime.create(config)

    assert second is not first
    assert AgentRuntime.get() is second
    await ending


async def test_it_is_an_async_context_manager(config: GlobalSymphonyConfig):
    async with AgentRuntime(config) as runtime:
        assert AgentRuntime.get() is runtime
        with pytest.raises(RuntimeStateError, match="lives already"):
            await AgentRuntime(config).__aenter__()

    with pytest.raises(RuntimeStateError, match="no runtime"):
        AgentRuntime.get()
    with pytest.raises(RuntimeStateError, match="started before"):
        await runtime.__aenter__()


def test_a_new_loop_gets_a_new_runtime_after_the_old_one_was_closed(redis_url: str):
    config = GlobalSymphonyConfig(redis_url=redis_url)

    async def create() -> AgentRuntime:
        runtime = await AgentRuntime.create(config)
        await runtime.redis.aclose()  # a closed loop cannot close its connections any more
        return runtime

    first = asyncio.run(create())
    with pytest.raises(RuntimeStateError, match="was closed"):
        AgentRuntime.get()
    second = asyncio.run(create())

    assert first is not second
    asyncio.run(AgentRuntime.shutdown())


async def test_on_another_running_loop_it_is_refused(config: GlobalSymphonyConfig):
    runtime = await AgentRuntime.create(config)
    elsewhere = SyncBridge()
    try:
        for call in (AgentRuntime.create(config), AgentRuntime.shutdown()):
            with pytest.raises(RuntimeStateError, match="another event loop"):
                await asyncio.to_thread(elsewhere.run, call)
    finally:
        elsewhere.close()

    assert AgentRuntime.get() is runtime


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_with_none():
    program = """
import asyncio, os
from agent_service.runtime import AgentRuntime
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # no word of a slow machine
    await AgentRuntime.create()
    child = os.fork()
    if not child:
        try:
            AgentRuntime.get()
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    await AgentRuntime.shutdown()
asyncio.run(main())
"""
    run = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(run, capture_output=True, timeout=30, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


# -- what it is made of


@pytest.mark.parametrize("name", ["workers_user", "workers_tool", "workers_agent", "max_concurrent"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8", None])
def test_a_number_below_one_is_refused_by_name(name: str, value: Any):
    with pytest.raises(ConfigurationError, match=rf"{name} must be .* got {value!r}"):
        GlobalSymphonyConfig(**{name: value})


def test_an_unknown_field_is_refused_and_a_url_is_not_shown():
    with pytest.raises(TypeError, match="worker_count"):
        GlobalSymphonyConfig(worker_count=3)  # type: ignore[call-arg] # the mistake

    assert "secret" not in repr(GlobalSymphonyConfig(redis_url="redis://:secret@h/0", database_url="x://:secret@h/d"))


def test_the_documented_defaults():
    config = GlobalSymphonyConfig()

    assert config.workers_user == (os.cpu_count() or 1) * 4
    assert (config.workers_tool, config.workers_agent, config.max_concurrent) == (32, 16, 128)
    assert config.start_degraded is False


async def test_what_the_config_leaves_open_comes_from_the_settings(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CACHE_KEY_PREFIX", "mine")
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///sessions.db")
    reset_settings()

    async with AgentRuntime() as runtime:
        assert runtime.redis.prefix == "mine"
        assert await runtime.redis.client.execute("PING") == b"PONG"
        assert str(runtime.database) == "sqlite+aiosqlite:///sessions.db"


async def test_without_any_redis_it_starts_and_says_so():
    async with AgentRuntime() as runtime:
        assert runtime.metrics()["redis"] == {"configured": False, "available": False}
        with pytest.raises(RedisUnavailableError, match="REDIS_URL"):
            _ = runtime.redis.client


async def test_what_was_given_stays_open(redis_url: str):
    redis, database = RedisManager(redis_url), DatabaseManager("sqlite+aiosqlite://")

    async with AgentRuntime(redis=redis, database=database) as runtime:
        assert (runtime.redis, runtime.database) == (redis, database)

    await redis.client.ping()
    async with database.session():
        pass
    await redis.aclose()
    await database.close()


async def test_repositories_use_the_redis_of_the_live_runtime(runtime: AgentRuntime):
    state = RedisSharedState(tenant="acme", user_id="alice")

    await state.set("conversation", {"step": 1})

    assert await state.get("conversation") == {"step": 1}
    assert await runtime.redis.client.execute("DBSIZE") > 0


async def test_the_limiter_has_as_many_places_as_configured(redis_url: str):
    config = GlobalSymphonyConfig(redis_url=redis_url, max_concurrent=2)
    async with AgentRuntime(config) as runtime, runtime.limiter, runtime.limiter:
        assert runtime.metrics()["limiter"]["held"] == runtime.limiter.limit == 2


# -- a start that fails


async def test_with_redis_down_create_fails_and_leaves_nothing():
    before = pool_threads()
    with pytest.raises(RedisUnavailableError) as caught:
        await AgentRuntime.create(GlobalSymphonyConfig(redis_url=NOBODY))

    assert "start_degraded=True" in caught.value.__notes__[0]
    assert pool_threads() == before
    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


async def test_a_failed_start_can_be_followed_by_a_good_one(own_redis: RedisServer):
    config = GlobalSymphonyConfig(redis_url=own_redis.url)
    own_redis.kill()
    outcomes = await asyncio.gather(*(AgentRuntime.create(config) for _ in range(5)), return_exceptions=True)
    own_redis.restart()

    assert [type(each) for each in outcomes] == [RedisUnavailableError] * 5
    assert await AgentRuntime.create(config) is AgentRuntime.get()


async def test_a_cancelled_start_leaves_nothing(redis_proxy: TcpProxy):
    redis_proxy.stall()
    creating = asyncio.create_task(AgentRuntime.create(GlobalSymphonyConfig(redis_url=redis_proxy.url)))
    await asyncio.sleep(0.05)
    creating.cancel()

    with pytest.raises(asyncio.CancelledError):
        await creating
    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


async def test_started_degraded_it_serves_when_redis_comes_back(caplog: pytest.LogCaptureFixture):
    with RedisServer() as server:
        server.kill()
        with caplog.at_level(logging.WARNING, "agent_service"):
            runtime = await AgentRuntime.create(GlobalSymphonyConfig(redis_url=server.url, start_degraded=True))
        with pytest.raises(RedisUnavailableError):
            await RedisSharedState("acme", "alice").get("conversation")
        unavailable = runtime.metrics()["redis"]["available"]
        server.restart()
        await RedisSharedState("acme", "alice").set("conversation", {"step": 1})

        assert not unavailable
        assert runtime.metrics()["redis"]["available"]
        assert [each.name for each in caplog.records] == ["agent_service.redis"]
        await AgentRuntime.shutdown()


async def test_a_wrong_password_is_no_outage():
    with RedisServer(password="right") as server:
        url = server.url.replace("right", "wrong")
        with pytest.raises(RedisCommandError):
            await AgentRuntime.create(GlobalSymphonyConfig(redis_url=url, start_degraded=True))


@pytest.mark.parametrize("url", [{"redis_url": "http://x"}, {"database_url": "mysql://x"}])
async def test_a_url_that_cannot_be_used_is_refused(url: dict[str, str]):
    with pytest.raises(ConfigurationError):
        await AgentRuntime.create(GlobalSymphonyConfig(**url))  # type: ignore[arg-type] # strings only
    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


# -- the end


async def longest_stall(until: "asyncio.Future[None] | asyncio.Task[None]") -> float:
    """How long the loop did not come round while a task ran, in seconds."""
    longest, last = 0.0, time.monotonic()
    while not until.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def test_shutdown_with_16_tools_blocked_on_the_loop_ends_in_time_and_never_stops_the_loop(runtime: AgentRuntime):
    cancelled: list[bool] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    tools = [
        runtime.loop.run_in_executor(runtime.pool_tool, lambda: runtime.bridge.run(forever(), None)) for _ in range(16)
    ]
    while runtime.metrics()["bridge"]["waiting"] < 16:
        await asyncio.sleep(0.001)

    began = time.monotonic()
    ending = asyncio.create_task(AgentRuntime.shutdown(timeout=4.0))
    stall = await longest_stall(ending)
    took = time.monotonic() - began
    outcomes = await asyncio.gather(*tools, return_exceptions=True)

    assert took < 12  # and not for ever; the machine is busy, too
    assert stall < 1.8  # waiting for the tools on the loop would take 2 s
    assert [type(each) for each in outcomes] == [BridgeError] * 16
    assert cancelled == [True] * 16


async def test_tools_that_wait_past_the_bridge_do_not_hold_up_the_end(runtime: AgentRuntime):
    go = asyncio.Event()

    def tool() -> bool:
        return asyncio.run_coroutine_threadsafe(go.wait(), AgentRuntime.get().loop).result(timeout=30)

    tools = [runtime.pool_tool.submit(tool) for _ in range(16)]
    await until(lambda: all(each.running() for each in tools))
    async with ticking() as ticks:
        await AgentRuntime.shutdown(timeout=1.0)
    go.set()

    assert ticks.seconds < 3
    assert await asyncio.to_thread(lambda: [each.result() for each in tools]) == [True] * 16


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_an_unusable_time_for_the_end_is_refused(runtime: AgentRuntime, seconds: float):
    with pytest.raises(ConfigurationError, match="timeout"):
        await AgentRuntime.shutdown(seconds)
    assert AgentRuntime.get() is runtime


async def test_tools_that_finish_in_time_keep_their_state_until_then(runtime: AgentRuntime):
    async def slow_write() -> bool:
        await asyncio.sleep(0.1)
        return await RedisSharedState("acme", "alice").set("conversation", {"step": 2})

    def tool() -> bool:
        return AgentRuntime.get().bridge.run(slow_write())

    running = runtime.loop.run_in_executor(runtime.pool_tool, tool)
    while not runtime.metrics()["bridge"]["waiting"]:
        await asyncio.sleep(0.001)
    async with ticking() as ticks:
        await AgentRuntime.shutdown(timeout=30)

    assert ticks.seconds < 4  # it ended when the tool had
    assert await running is True


async def test_what_tools_await_is_left_alone_for_half_the_time(runtime: AgentRuntime):
    cancelled: list[float] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(time.monotonic())

    running = runtime.loop.run_in_executor(runtime.pool_tool, lambda: runtime.bridge.run(forever(), None))
    while not runtime.metrics()["bridge"]["waiting"]:
        await asyncio.sleep(0.001)
    began = time.monotonic()
    await AgentRuntime.shutdown(timeout=2)

    assert cancelled[0] - began >= 0.95
    with pytest.raises(BridgeError):
        await running


async def test_queued_work_is_cancelled_and_no_more_is_taken(redis_url: str):
    go = threading.Event()
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=redis_url, workers_tool=1)) as runtime:
        running = runtime.loop.run_in_executor(runtime.pool_tool, go.wait)
        await until(lambda: runtime.metrics()["pools"]["tool"]["busy"] == 1)
        queued = runtime.loop.run_in_executor(runtime.pool_tool, go.wait)
        ending = asyncio.create_task(AgentRuntime.shutdown())
        await until(queued.cancelled)
        with pytest.raises(RuntimeStateError, match="'tool' takes no more work"):
            runtime.pool_tool.submit(go.wait)
        go.set()
        await ending

    assert await running is True
    assert queued.cancelled()


async def test_a_thread_that_cannot_be_ended_does_not_hold_up_the_end(
    runtime: AgentRuntime, caplog: pytest.LogCaptureFixture
):
    go = threading.Event()
    stuck = runtime.pool_user.submit(go.wait)
    async with ticking() as ticks:
        with caplog.at_level(logging.WARNING, "agent_service"):
            await AgentRuntime.shutdown(timeout=1.0)
    go.set()
    await asyncio.to_thread(stuck.result)

    assert ticks.seconds < 3
    assert "1 threads still run" in caplog.text


async def test_a_failed_tool_stays_its_callers_business(runtime: AgentRuntime):
    begun, go = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go.wait()
        raise LookupError("the tool's own")

    failing = runtime.loop.run_in_executor(runtime.pool_tool, fail)
    await until(begun.is_set)
    ending = asyncio.create_task(AgentRuntime.shutdown())
    await asyncio.sleep(0)
    go.set()
    await ending

    with pytest.raises(LookupError, match="the tool's own"):
        await failing


async def test_cancelling_the_caller_does_not_stop_the_shutdown(runtime: AgentRuntime):
    go = threading.Event()
    running = runtime.loop.run_in_executor(runtime.pool_tool, go.wait)
    await until(lambda: runtime.metrics()["pools"]["tool"]["busy"] == 1)
    ending = asyncio.create_task(AgentRuntime.shutdown())
    await asyncio.sleep(0.01)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    go.set()
    await running
    await AgentRuntime.shutdown()

    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


async def test_two_shutdowns_at_once_both_wait_for_the_end(runtime: AgentRuntime):
    await asyncio.gather(AgentRuntime.shutdown(), AgentRuntime.shutdown())

    with pytest.raises(RuntimeStateError):
        AgentRuntime.get()


async def test_after_the_end_no_connection_is_left(redis_url: str, own_redis: RedisServer):
    async with AgentRuntime(GlobalSymphonyConfig(redis_url=f"{own_redis.url}?client_name=runtime")):
        assert b"name=runtime" in own_redis.cli("CLIENT", "LIST")

    await until(lambda: b"name=runtime" not in own_redis.cli("CLIENT", "LIST"))
