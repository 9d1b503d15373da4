"""Locks by key: one holder each, in order of arrival, and nobody waits for ever."""

import asyncio
import random
import string
import threading
from collections.abc import Iterable

import pytest

from agent_service.context.key_locks import KeyLocks


async def hold(locks: KeyLocks, keys: Iterable[str], entered: list[str], name: str) -> None:
    async with locks.hold(keys):
        entered.append(name)
        await asyncio.sleep(0)


async def started(*tasks: asyncio.Task[None]) -> None:
    """Let tasks run until each waits for its lock."""
    for _ in range(3 * len(tasks)):
        await asyncio.sleep(0)


async def test_a_lock_is_handed_on_in_order_of_arrival():
    locks, entered = KeyLocks(), list[str]()
    async with locks.hold(["a"]):
        tasks = [asyncio.create_task(hold(locks, ["a"], entered, f"{number}")) for number in range(10)]
        await started(*tasks)
        assert entered == []
    await asyncio.gather(*tasks)

    assert entered == [f"{number}" for number in range(10)]


async def test_keys_that_differ_do_not_wait_for_one_another():
    locks = KeyLocks()

    async with asyncio.timeout(60), locks.hold(["a", "b"]), locks.hold(["c"]):
        pass


async def test_a_key_that_is_named_twice_is_held_once():
    locks = KeyLocks()

    async with asyncio.timeout(60):
        for _ in range(2):
            async with locks.hold(["a", "a"]):
                pass


async def test_holders_of_the_same_keys_in_other_orders_never_wait_for_one_another():
    locks, entered, keys = KeyLocks(), list[str](), list(string.ascii_letters)
    shuffled = [random.Random(seed).sample(keys, len(keys)) for seed in range(20)]
    async with locks.hold([keys[0]]), locks.hold([keys[30]]):
        tasks = [asyncio.create_task(hold(locks, each, entered, "")) for each in shuffled]
        await started(*tasks)

    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)

    assert len(entered) == 20


async def test_who_is_cancelled_while_waiting_leaves_the_lock_to_the_next():
    locks, entered = KeyLocks(), list[str]()
    async with locks.hold(["b"]):
        first = asyncio.create_task(hold(locks, ["a", "b"], entered, "first"))
        second = asyncio.create_task(hold(locks, ["a", "b"], entered, "second"))
        await started(first, second)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(60):
        await second

    assert entered == ["second"]


async def test_who_is_cancelled_in_the_moment_of_getting_the_lock_hands_it_on():
    locks, entered = KeyLocks(), list[str]()
    async with locks.hold(["a"]):
        first = asyncio.create_task(hold(locks, ["a"], entered, "first"))
        second = asyncio.create_task(hold(locks, ["a"], entered, "second"))
        await started(first, second)
    first.cancel()  # the lock is its own already, and it has not run since
    async with asyncio.timeout(60):
        await asyncio.gather(first, return_exceptions=True)
        await second

    assert entered == ["second"]


async def test_an_exception_in_the_block_gives_the_locks_back():
    locks = KeyLocks()
    with pytest.raises(LookupError):
        async with locks.hold(["a", "b"]):
            raise LookupError

    async with asyncio.timeout(60), locks.hold(["b", "a"]):
        pass


def test_event_loops_of_several_threads_take_turns():
    locks, inside, most, together = KeyLocks(), 0, 0, threading.Barrier(4)

    async def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            async with locks.hold(["a"]):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

    def run() -> None:
        together.wait(60)
        asyncio.run(asyncio.wait_for(work(), 60))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(80)

    assert not any(thread.is_alive() for thread in threads)
    assert (inside, most) == (0, 1)
