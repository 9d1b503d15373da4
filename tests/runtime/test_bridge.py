"""Threads that await on an event loop."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
import pytest_asyncio

from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import AgentServiceError, BridgeError, BridgeTimeoutError, ConfigurationError
from tests.support.waiting import until

who: ContextVar[str] = ContextVar("who")


@pytest_asyncio.fixture
async def bridge() -> AsyncIterator[SyncBridge]:
    """A bridge to the loop of the test."""
    bridge = SyncBridge(asyncio.get_running_loop())
    yield bridge
    bridge.close()


@pytest.fixture
def own() -> Iterator[SyncBridge]:
    """A bridge with a loop of its own."""
    bridge = SyncBridge()
    yield bridge
    bridge.close()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def forever(cancelled: list[bool]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.append(True)
        raise


async def test_a_thread_gets_what_the_coroutine_gives(bridge: SyncBridge):
    assert await asyncio.to_thread(bridge.run, double(21)) == 42
    assert bridge.waiting == 0


async def test_a_thread_gets_what_the_coroutine_raises(bridge: SyncBridge):
    async def fail(error: Exception) -> None:
        raise error

    for error in (LookupError("no such user"), TimeoutError("the coroutine's own")):
        with pytest.raises(type(error), match=str(error)):
            await asyncio.to_thread(bridge.run, fail(error))


async def test_the_coroutine_sees_the_context_of_the_calling_thread(bridge: SyncBridge):
    async def tell() -> str:
        return who.get()

    def call(name: str) -> str:
        who.set(name)
        return bridge.run(tell())

    names = [f"user-{number}" for number in range(20)]

    assert await asyncio.gather(*(asyncio.to_thread(call, name) for name in names)) == names


async def test_a_thousand_calls_from_32_threads_while_the_loop_is_busy(bridge: SyncBridge):
    async def busy() -> None:
        while True:
            time.sleep(0.0005)  # noqa: ASYNC251 - the burden
            await asyncio.sleep(0)

    burden = [asyncio.create_task(busy()) for _ in range(2)]
    with ThreadPoolExecutor(32) as pool:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(pool, bridge.run, double(number)) for number in range(1000)]
        results = await asyncio.gather(*calls)
    for each in burden:
        each.cancel()

    assert results == [2 * number for number in range(1000)]
    assert bridge.waiting == 0


async def test_a_timeout_cancels_the_coroutine(bridge: SyncBridge):
    cancelled: list[bool] = []

    with pytest.raises(BridgeTimeoutError, match=r"within 0\.05 s") as caught:
        await asyncio.to_thread(bridge.run, forever(cancelled), 0.05)
    await until(lambda: cancelled == [True])

    assert isinstance(caught.value, TimeoutError)


async def test_on_the_thread_of_the_loop_it_raises_at_once(bridge: SyncBridge):
    with pytest.raises(BridgeError, match="await it instead") as caught:
        bridge.run(double(1))
    gc.collect()  # a coroutine that was never awaited would warn now

    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, AgentServiceError)


async def test_on_the_thread_of_another_loop_it_raises_too(own: SyncBridge):
    with pytest.raises(BridgeError, match="await it instead"):
        own.run(double(1))


async def test_what_is_no_coroutine_is_refused(own: SyncBridge):
    with pytest.raises(TypeError, match="call the async function first"):
        own.run(double)  # type: ignore[arg-type] # the mistake


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_unusable_timeout_is_refused(own: SyncBridge, timeout: float):
    with pytest.raises(ConfigurationError, match="timeout"):
        own.run(double(1), timeout)


async def test_closing_ends_the_calls_that_wait(bridge: SyncBridge):
    cancelled: list[bool] = []
    calls = [asyncio.create_task(asyncio.to_thread(bridge.run, forever(cancelled))) for _ in range(4)]
    while bridge.waiting < 4:
        await asyncio.sleep(0.001)

    bridge.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: cancelled == [True] * 4)

    assert [type(each) for each in outcomes] == [BridgeError] * 4
    assert bridge.closed
    with pytest.raises(BridgeError, match="closed"):
        await asyncio.to_thread(bridge.run, double(1))


async def test_a_coroutine_cancelled_on_the_loop_ends_the_call(bridge: SyncBridge):
    async def cancel_oneself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(BridgeError, match="cancelled"):
        await asyncio.to_thread(bridge.run, cancel_oneself())


def test_a_loop_that_does_not_run_is_refused_at_once():
    loop = asyncio.new_event_loop()
    bridge = SyncBridge(loop)

    with pytest.raises(BridgeError, match="does not run"):
        bridge.run(double(1))
    loop.close()
    with pytest.raises(BridgeError, match="does not run"):
        bridge.run(double(1))


def test_a_loop_closed_while_a_thread_waits_ends_the_wait():
    loop = asyncio.new_event_loop()
    bridge = SyncBridge(loop)
    outcome: list[Exception] = []
    running = threading.Event()

    async def stop_the_loop() -> None:
        running.set()
        loop.stop()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            bridge.run(stop_the_loop(), timeout=None)
        except BridgeError as exc:
            outcome.append(exc)

    server = threading.Thread(target=loop.run_forever)
    server.start()
    caller = threading.Thread(target=call)
    caller.start()
    running.wait()
    server.join()
    for task in asyncio.all_tasks(loop):
        task.get_coro().close()
        task._log_destroy_pending = False  # type: ignore[attr-defined] # nobody awaits it any more, on purpose
    loop.close()
    caller.join()

    assert "closed" in str(outcome[0])


def test_a_bridge_without_a_loop_starts_one_with_the_first_call(own: SyncBridge):
    before = threading.active_count()

    assert own.run(double(4)) == 8
    assert threading.active_count() == before + 1
    assert own.run(double(5)) == 10
    assert threading.active_count() == before + 1


def test_threads_that_race_for_the_first_call_share_one_loop(own: SyncBridge):
    async def loop_of_the_call() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(16) as pool:
        loops = set(pool.map(lambda _: own.run(loop_of_the_call()), range(64)))

    assert len(loops) == 1


def test_closing_ends_the_loop_and_what_runs_on_it(own: SyncBridge):
    ended: list[bool] = []

    async def leave_a_task() -> asyncio.Task[None]:
        task = asyncio.create_task(forever(ended))
        await asyncio.sleep(0)
        return task

    task = own.run(leave_a_task())
    own.close()
    own.close()

    assert ended == [True]
    assert task.cancelled()
    with pytest.raises(BridgeError, match="closed"):
        own.run(double(1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_its_own_loop_and_the_interpreter_ends_it():
    program = """
import os, sys
from agent_service.core.bridge import SyncBridge
async def pid(): return os.getpid()
bridge = SyncBridge()
assert bridge.run(pid()) == os.getpid()
child = os.fork()
assert bridge.run(pid(), timeout=5) == os.getpid()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
