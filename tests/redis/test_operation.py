"""Deadlines, without a server: an operation is any awaiting in its ``with`` block."""

import asyncio
from collections import Counter

import pytest

from agent_service.core.errors import RedisUnavailableError
from agent_service.core.histogram import Histogram
from agent_service.core.tracing import Server
from agent_service.infrastructure.redis.operation import Operations
from tests.support.waiting import ticking


@pytest.fixture
def operations() -> Operations:
    counted = Histogram(), Counter[str]()
    return Operations(
        target="somewhere", timeout=0.05, slots=1000, latency=counted[0], errors=counted[1], server=Server("redis")
    )


async def wait(operations: Operations, seconds: float) -> str:
    async with operations.begin():
        await asyncio.sleep(seconds)
    return "done"


async def test_what_ends_in_time_ends_well_and_leaves_no_trace(operations: Operations):
    assert await asyncio.gather(*(wait(operations, 0.001) for _ in range(100))) == ["done"] * 100
    await operations.close()


async def test_each_operation_has_its_own_deadline(operations: Operations):
    loop = asyncio.get_running_loop()

    async def late(start: float) -> float:
        await asyncio.sleep(start)
        started = loop.time()
        with pytest.raises(RedisUnavailableError, match=r"within 0\.05 s"):
            await wait(operations, 5)
        return loop.time() - started

    async with ticking() as ticks:
        waits = await asyncio.gather(*(late(number / 100) for number in range(10)))

    assert min(waits) > 0.045
    assert ticks.seconds < 3
    await operations.close()


async def test_after_a_timeout_the_task_can_be_cancelled_and_time_out_again(operations: Operations):
    timed_out = asyncio.Event()

    async def work() -> None:
        for _ in range(2):
            with pytest.raises(RedisUnavailableError):
                await wait(operations, 5)
        timed_out.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await timed_out.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1
    await operations.close()


async def test_a_timeout_of_ours_inside_a_timeout_of_the_caller_is_told_apart(operations: Operations):
    async with asyncio.timeout(30):
        with pytest.raises(RedisUnavailableError):
            await wait(operations, 5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait(operations, 5)
    await operations.close()


async def test_a_cancellation_that_arrives_with_the_deadline_is_not_swallowed(operations: Operations):
    task = asyncio.create_task(wait(operations, 5))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(operations.timeout, task.cancel)

    done, _ = await asyncio.wait([task])

    assert done.pop().cancelled()
    await operations.close()


async def test_an_answer_that_arrives_with_the_deadline_counts(operations: Operations):
    async def stubborn() -> str:
        async with operations.begin():
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return "answer"
        return "unreachable"

    task = asyncio.create_task(stubborn())

    assert await task == "answer"
    assert task.cancelling() == 0
    await operations.close()


async def test_a_bug_inside_passes_unchanged_and_says_nothing_about_redis(operations: Operations):
    with pytest.raises(ZeroDivisionError):
        async with operations.begin():
            _ = 1 / 0

    assert operations.available is None
    await operations.close()


async def test_closing_waits_for_what_runs_and_refuses_what_comes(operations: Operations):
    running = asyncio.create_task(wait(operations, 0.02))
    await asyncio.sleep(0)
    await operations.close()

    assert await running == "done"
    with pytest.raises(RedisUnavailableError, match="was closed"):
        operations.begin()
