"""What becomes free is handed to who waits longest."""

import asyncio

import pytest

from agent_service.core.waiters import Waiters

LONG = 60.0


async def waiting(waiters: Waiters[int], count: int, back: list[int], seconds: float = LONG) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(waiters.wait(seconds, back.append)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_each_gets_one_in_the_order_in_which_they_came():
    waiters, back = Waiters[int](), list[int]()
    tasks = await waiting(waiters, 3, back)

    taken = [waiters.give(thing) for thing in range(5)]

    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert taken == [True, True, True, False, False]
    assert back == []


async def test_what_was_given_to_a_task_that_is_cancelled_before_it_runs_comes_back():
    waiters, back = Waiters[int](), list[int]()
    first, second = await waiting(waiters, 2, back)

    waiters.give(1)
    first.cancel()
    await asyncio.wait([first])
    waiters.give(2)

    assert (first.cancelled(), back, await second) == (True, [1], 2)


async def test_who_was_cancelled_or_waited_too_long_is_passed_over():
    waiters, back = Waiters[int](), list[int]()
    (impatient,) = await waiting(waiters, 1, back, seconds=0.01)
    left, patient = await waiting(waiters, 2, back)
    left.cancel()

    with pytest.raises(TimeoutError):
        await impatient
    assert waiters.give(7)
    assert (await patient, waiters.give(8), back) == (7, False, [])
