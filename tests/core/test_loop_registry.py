import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from agent_service.core.loop_registry import LoopRegistry, run_on_their_loops


@contextmanager
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    running = threading.Event()
    loop.call_soon(running.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running.wait(30)
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_tasks() -> None:
    """End what nobody waited for, so that no task is destroyed while it is pending."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> object:
    async def run() -> object:
        return call()

    return asyncio.run_coroutine_threadsafe(run(), loop).result(30)


async def test_each_loop_has_one_of_its_own():
    registry = LoopRegistry[list[str]]()
    here = registry.get(list)

    with other_loop() as loop:
        there = on(loop, lambda: registry.get(list))

        assert here is not there
        assert registry.get(list) is here
        assert registry.items() == [(asyncio.get_running_loop(), here), (loop, there)]
        assert on(loop, registry.pop) is there
    assert registry.items() == [(asyncio.get_running_loop(), here)]
    assert registry.pop() is here
    assert registry.pop() is None


def test_what_belongs_to_a_closed_loop_is_forgotten_with_the_next():
    registry = LoopRegistry[list[str]]()

    async def use() -> None:
        registry.get(list)

    for _ in range(3):
        asyncio.run(use())

    assert registry.items() == []
    assert len(registry._made) == 1


async def test_a_resource_can_be_replaced():
    registry = LoopRegistry[str]()
    registry.get(lambda: "first")

    assert registry.put("second") == "second"
    assert registry.get(lambda: "third") == "second"
    assert registry.pop_all() == [(asyncio.get_running_loop(), "second")]
    assert registry.items() == []


def test_threads_get_one_each():
    registry, made = LoopRegistry[object](), []

    async def use() -> None:
        made.append(registry.get(object))
        assert registry.get(object) is made[-1] or len(made) > 1
        await asyncio.sleep(0)
        registry.pop()

    threads = [threading.Thread(target=lambda: [asyncio.run(use()) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(each) for each in made}) == len(made) == 80
    assert registry.items() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_starts_with_none_and_finalises_nothing():
    class Resource:
        def __del__(self) -> None:
            if os.getpid() != parent:
                os._exit(3)

    async def use() -> bool:
        return (
            registry.pop() is None and registry.put(registry.get(Resource)) is not None and len(registry.items()) == 1
        )

    async def fork() -> int:
        registry.get(Resource)
        with registry._lock:
            return os.fork()

    parent = os.getpid()
    registry = LoopRegistry[Resource]()
    child = asyncio.run(fork())
    if not child:
        try:
            os._exit(0 if asyncio.run(use()) else 1)
        finally:
            os._exit(2)

    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


async def test_work_is_done_on_the_loop_it_belongs_to():
    done: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        done.append(asyncio.get_running_loop())

    here = asyncio.get_running_loop()
    closed = asyncio.new_event_loop()
    closed.close()
    with other_loop() as loop:
        await run_on_their_loops([(closed, work), (here, work), (loop, work)], patience=30)

        assert sorted(map(id, done)) == sorted(map(id, (here, loop)))


async def test_a_loop_that_does_not_answer_is_waited_for_in_bounds():
    blocking: Future[None] = Future()
    done = []

    async def work() -> None:
        done.append(1)

    with other_loop() as loop:
        loop.call_soon_threadsafe(blocking.result)
        await run_on_their_loops([(loop, work), (asyncio.get_running_loop(), work)], patience=0.05)
        blocked = list(done)
        blocking.set_result(None)

    assert blocked == [1]


async def test_what_a_work_raises_is_raised_when_the_others_are_done():
    done = []

    async def fail() -> None:
        raise ValueError("here")

    async def work() -> None:
        done.append(1)

    with other_loop() as loop:
        here = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="here"):
            await run_on_their_loops([(here, fail), (here, work), (loop, work)], patience=30)

    assert done == [1, 1]


async def test_what_a_work_raises_on_another_loop_is_logged(caplog: pytest.LogCaptureFixture):
    done = []

    async def fail() -> None:
        raise ValueError("a leftover")

    async def work() -> None:
        done.append(1)

    with other_loop() as loop:
        await run_on_their_loops([(loop, fail), (asyncio.get_running_loop(), work), (loop, work)], patience=30)

    assert done == [1, 1]
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "Something failed on another event loop: ValueError: a leftover")
    ]
