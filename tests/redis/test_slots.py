"""Waiting for a slot, without a server: it is no outage, and it ends when Redis answers no operation."""

import asyncio
import time

import pytest

from agent_service.core.errors import RedisBusyError, RedisUnavailableError
from agent_service.core.metrics import LatencyHistogram
from agent_service.core.tracing import Server
from agent_service.infrastructure.redis.operation import Operations


def operations_with(slots: int, *, timeout: float = 0.05) -> Operations:
    return Operations(
        target="somewhere", timeout=timeout, slots=slots, latency=LatencyHistogram(), server=Server("redis")
    )


async def work(operations: Operations, seconds: float, patience: float | None = None) -> str:
    async with operations.begin(patience):
        await asyncio.sleep(seconds)
    return "done"


async def test_who_waits_longer_than_a_deadline_is_served_as_long_as_others_are():
    operations = operations_with(1)

    replies = await asyncio.gather(*(work(operations, 0.01) for _ in range(20)))

    assert replies == ["done"] * 20
    assert operations.available
    await operations.close()


async def test_slots_are_handed_out_in_the_order_in_which_they_were_asked_for():
    operations = operations_with(2)
    order: list[int] = []

    async def note(number: int) -> None:
        async with operations.begin():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(note(number) for number in range(100)))

    assert order == list(range(100))
    await operations.close()


async def test_who_is_impatient_gives_up_and_says_nothing_about_redis():
    operations = operations_with(1)
    holders = [asyncio.create_task(work(operations, 0.02)) for _ in range(20)]
    await asyncio.sleep(0)

    with pytest.raises(RedisBusyError, match="all 1 connections were busy"):
        await work(operations, 0, patience=0.05)

    assert not all(holder.done() for holder in holders)
    assert await asyncio.gather(*holders) == ["done"] * 20
    assert operations.available
    await operations.close()


async def test_a_server_that_answers_nobody_ends_all_waits_with_the_first_deadline():
    operations = operations_with(1)
    started = time.monotonic()

    outcomes = await asyncio.gather(*(work(operations, 60) for _ in range(500)), return_exceptions=True)

    assert {type(each) for each in outcomes} == {RedisUnavailableError}
    assert [each.maybe_executed for each in outcomes if isinstance(each, RedisUnavailableError)] == [False] * 500
    assert time.monotonic() - started < 500 * operations.timeout / 2, "one after the other"
    assert operations.available is False
    await operations.close()


async def test_a_slot_handed_to_a_caller_who_is_cancelled_is_not_lost():
    operations = operations_with(1)
    for steps in range(8):
        holder = asyncio.create_task(work(operations, 0))
        waiting = asyncio.create_task(work(operations, 0))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([holder, waiting])

        assert await work(operations, 0) == "done"
    assert operations.slots.all_free
    await operations.close()


async def test_nobody_who_waited_with_patience_is_remembered_once_nobody_waits():
    operations = operations_with(1)
    started = [asyncio.create_task(work(operations, 60, patience=5)) for _ in range(50)]
    await asyncio.wait(started)

    assert all(isinstance(each.exception(), RedisUnavailableError) for each in started)
    assert not operations.slots.waiting
    assert not operations.slots._by_patience
    await operations.close()


async def test_closing_serves_those_who_wait_and_ends_waits_that_would_take_too_long():
    operations = operations_with(1, timeout=0.4)
    served = [asyncio.create_task(work(operations, 0)) for _ in range(3)]
    late = [asyncio.create_task(work(operations, 0.1)) for _ in range(50)]
    await asyncio.sleep(0)

    await operations.close()

    assert await asyncio.gather(*served) == ["done"] * 3
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert "was closed" in str(outcomes[-1])
    assert operations.slots.all_free


async def test_time_in_which_this_process_was_busy_does_not_count():
    """The answer has arrived and could not be read: a loop that was blocked says nothing about the server."""
    operations = operations_with(1)
    answered = asyncio.Event()

    async def ask() -> str:
        async with operations.begin():
            await answered.wait()
            for _ in range(10):  # rounds of the loop, as connecting and reading take several
                await asyncio.sleep(0)
        return "answer"

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, 3 * operations.timeout)
    asyncio.get_running_loop().call_soon(answered.set)

    assert await task == "answer"
    await operations.close()


async def test_many_turns_that_are_all_slow_do_not_count_as_one_deadline():
    operations = operations_with(1)
    loop = asyncio.get_running_loop()

    async def ask() -> str:
        async with operations.begin():
            for _ in range(40):
                loop.call_soon(time.sleep, operations.timeout / 2)
                await asyncio.sleep(0)
        return "answer"

    assert await ask() == "answer"
    await operations.close()
