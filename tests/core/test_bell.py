import asyncio
import threading

from agent_service.core.bell import Bell


async def test_a_ring_wakes_who_waits():
    bell = Bell()
    asyncio.get_running_loop().call_soon(bell.ring)

    assert await bell.wait(60)
    assert not await bell.wait(0)


async def test_a_ring_before_the_wait_is_kept_and_several_are_one():
    bell = Bell()
    bell.ring()
    bell.ring()

    assert await bell.wait(0)
    assert not await bell.wait(0.001)


async def test_without_a_limit_it_waits_for_the_ring():
    bell = Bell()
    waiting = asyncio.ensure_future(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done()

    bell.ring()

    assert await waiting


async def test_no_ring_of_another_thread_is_lost():
    bell, heard = Bell(), threading.Semaphore(0)
    rings = 2000

    def ring() -> None:
        for _ in range(rings):
            bell.ring()
            assert heard.acquire(timeout=30)

    thread = threading.Thread(target=ring)
    thread.start()
    for _ in range(rings):
        assert await bell.wait(30)
        heard.release()
    await asyncio.to_thread(thread.join)


async def test_who_was_cancelled_leaves_the_ring_to_the_next():
    bell = Bell()
    waiting = asyncio.ensure_future(bell.wait())
    await asyncio.sleep(0)
    bell.ring()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert await bell.wait(0)


def test_it_outlives_its_loops():
    bell = Bell()
    bell.ring()
    first = asyncio.run(bell.wait(60))

    loop = asyncio.new_event_loop()
    left = loop.create_task(bell.wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bell.ring()  # its loop was closed without ending the task
    second = asyncio.run(bell.wait(60))

    async def wait_for_a_thread() -> bool:
        threading.Timer(0.01, bell.ring).start()
        left.get_coro().close()  # what the garbage collector does, in the middle of a wait
        return await bell.wait(60)

    assert (first, second, asyncio.run(wait_for_a_thread())) == (True, True, True)
    left._log_destroy_pending = False  # type: ignore[attr-defined]
