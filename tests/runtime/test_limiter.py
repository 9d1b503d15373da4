"""The limiter admits so many at once, in order, and counts who waited."""

import asyncio
import time

import pytest

from agent_service.runtime.limiter import ConcurrencyLimiter


async def test_no_more_than_the_limit_at_once():
    limiter = ConcurrencyLimiter(3)
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(50)))

    assert most == 3
    assert limiter.metrics() | {"wait_seconds": 0} == {
        "limit": 3,
        "held": 0,
        "waiting": 0,
        "waits": 47,
        "wait_seconds": 0,
    }


async def test_waiters_are_served_in_their_order_and_counted():
    limiter = ConcurrencyLimiter(1)
    order: list[int] = []

    async def work(number: int) -> None:
        async with limiter:
            order.append(number)

    async with limiter:
        tasks = [asyncio.create_task(work(number)) for number in range(5)]
        began = time.monotonic()
        await asyncio.sleep(0.02)
        slept = time.monotonic() - began
        during = limiter.metrics()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]
    assert (during["held"], during["waiting"]) == (1, 5)
    assert limiter.metrics()["waits"] == 5
    assert limiter.metrics()["wait_seconds"] >= 5 * slept / 2


async def test_a_cancelled_waiter_and_a_failing_holder_leave_no_trace():
    limiter = ConcurrencyLimiter(1)

    async def work() -> None:
        async with limiter:
            pass

    async with limiter:
        cancelled, other = asyncio.create_task(work()), asyncio.create_task(work())
        await asyncio.sleep(0)
        cancelled.cancel()
    await other
    with pytest.raises(LookupError):
        async with limiter:
            raise LookupError
    await asyncio.wait_for(work(), 30)

    assert cancelled.cancelled()
    assert (limiter.metrics()["held"], limiter.metrics()["waiting"]) == (0, 0)
