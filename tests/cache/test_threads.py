"""One cache in memory, several threads, each with an event loop of its own."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_service import cached, close_cache, get_cache
from agent_service.core.forking import renew_after_fork
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.cache.calls.compiled import HotPath
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.table import Entry, MemoryStore

SECONDS = 1.0


@pytest.fixture(autouse=True)
def memory_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_thread(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function on an event loop of its own in another thread, and give its result."""

    async def run() -> Any:
        return await work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result(30)


def at_once(*works: Callable[[], object]) -> None:
    """Repeat each work in a thread of its own for a second; what one of them raises is raised here."""
    until = time.monotonic() + SECONDS

    def repeat(work: Callable[[], object]) -> None:
        while time.monotonic() < until:
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        for each in [pool.submit(repeat, work) for work in works]:
            each.result(30)


async def test_closing_in_one_thread_leaves_the_others_their_cache():
    here = await get_cache("shared")
    await here.set("k", "old")

    async def close_there() -> None:
        await (await get_cache("shared")).set("theirs", 1)
        await close_cache()

    in_thread(close_there)

    assert await here.get("k") == "old"
    assert await here.get("theirs") == 1

    async def delete_there() -> bool:
        return await (await get_cache("shared")).delete("k")

    assert in_thread(delete_there) is True
    assert await here.get("k") is None


async def test_a_handle_that_outlives_the_close_sees_the_invalidations_of_its_successor():
    before = await get_cache("shared")
    await close_cache()
    after = await get_cache("shared")
    await before.set("k", "old", tags=["t"])

    await after.delete("k")

    assert await before.get("k") is None
    await before.set("tagged", 1, tags=["t"])
    await after.invalidate_tags(["t"])
    assert await before.get("tagged") is None


async def test_the_last_event_loop_that_closes_empties_the_memory(monkeypatch: pytest.MonkeyPatch):
    async def open_without_closing() -> None:
        await (await get_cache("shared")).set("k", 1)

    in_thread(open_without_closing)
    await get_cache("shared")
    await close_cache()

    assert await (await get_cache("shared")).get("k") is None


async def test_a_decorated_function_follows_a_close_in_another_thread():
    calls = 0

    @cached(ttl=60)
    async def load(n: int) -> str:
        nonlocal calls
        calls += 1
        return f"{n}.{calls}"

    assert await load(1) == "1.1"
    in_thread(close_cache)
    assert await load(1) == "1.1"

    async def invalidate_there() -> bool:
        return await load.invalidate(1)

    assert in_thread(invalidate_there) is True
    assert await load(1) == "1.2"


async def test_threads_that_open_a_namespace_at_the_same_moment_share_it():
    for number in range(50):
        namespace = f"n{number}"
        barrier = threading.Barrier(4)
        stores: list[MemoryStore] = []

        async def open_it(namespace: str = namespace, barrier: threading.Barrier = barrier, to: Any = stores) -> None:
            barrier.wait(60)
            cache: Any = await get_cache(namespace)
            to.append(cache.backend.table)
            await close_cache()

        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(asyncio.run, open_it()) for _ in range(4)]:
                each.result(30)

        assert len({id(each) for each in stores}) == 1


@pytest.mark.usefixtures("frequent_switches")
def test_readers_never_notice_that_another_thread_deletes_evicts_or_clears():
    store = MemoryStore(50)
    keys = [f"k{number}" for number in range(80)]

    def read() -> None:
        for key in keys:
            found = store.read(key)
            assert found is None or found[0] == key
            store.live(key)

    def write() -> None:
        for key in keys:
            store.put(Entry(key, key, expires=time.monotonic() + 60, tokens=store.tags.take([key])))

    def delete() -> None:
        for key in keys:
            store.remove(key)
            store.tags.invalidate([key])

    def look() -> None:
        assert len(store.live_keys()) <= 50
        store.clear()

    at_once(read, read, write, write, delete, look)

    assert len(store) <= 50
    assert all(store.read(each) is not None for each in store.live_keys())


@pytest.mark.usefixtures("frequent_switches")
def test_a_cache_is_used_by_several_event_loops_at_once():
    cache: InMemoryCache[Any] = InMemoryCache(100)

    async def load() -> str:
        await asyncio.sleep(0)
        return "loaded"

    async def use() -> None:
        for number in range(40):
            key = f"k{number % 7}"
            assert await cache.get(key) in {None, "set", "loaded"}
            assert await cache.get_or_load(key, load, failure_backoff=1) in {"set", "loaded"}
            await cache.set(key, "set", tags=["t"])
            await cache.get_many([key, "k1", "k2"])
            await cache.delete(key)
            [each async for each in cache.scan()]
            await cache.delete_pattern("k[12]")
            await cache.invalidate_tags(["t"])

    at_once(*[lambda: asyncio.run(use())] * 4)


@pytest.mark.usefixtures("frequent_switches")
def test_a_decorated_function_is_called_by_several_event_loops_at_once():
    cache: InMemoryCache[Any] = InMemoryCache(20)

    @cached(cache=cache)
    async def square(n: int) -> int:
        await asyncio.sleep(0)
        return n * n

    async def use() -> None:
        for n in range(100):
            assert await square(n) == n * n
            if n % 10 == 0:
                await square.invalidate(n)

    at_once(*[lambda: asyncio.run(use())] * 4)


@pytest.mark.usefixtures("frequent_switches")
def test_the_short_way_is_shortened_while_other_threads_lengthen_it():
    store = MemoryStore(10)
    path = HotPath()
    path.bind = lambda *_: None
    counts: Any = CacheMetrics().namespace("")
    store.put(Entry("k", 1, expires=time.monotonic() + 60))
    numbers = iter(range(10**9))

    def remember() -> None:
        path.remember((next(numbers),), "k", store, counts)

    at_once(remember, remember, lambda: path._forget_dead(store))


@pytest.mark.usefixtures("frequent_switches")
def test_metrics_are_read_while_other_threads_open_namespaces():
    metrics = [CacheMetrics()]

    def open_namespaces() -> None:
        metrics[0] = CacheMetrics()
        for number in range(500):
            metrics[0].namespace(f"n{number}")
            metrics[0].add_gauge(f"g{number}", int)

    at_once(open_namespaces, lambda: metrics[0].snapshot(), lambda: metrics[0].reset())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks beside threads, which this is
def test_a_process_that_is_forked_beside_a_writer_uses_the_cache():
    cache: InMemoryCache[Any] = InMemoryCache(1000)
    ending = threading.Event()

    async def write() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            await cache.set(f"k{number % 2000}", number, tags=["t"])

    def in_child() -> None:
        async def use() -> None:
            await cache.set("child", 1, tags=["t"])
            assert await cache.get("child") == 1
            await cache.invalidate_tags(["t"])
            assert await cache.get("child") is None
            for number in range(200):
                await cache.set(f"k{number}", number)

        asyncio.run(use())

    writers = [threading.Thread(target=lambda: asyncio.run(write())) for _ in range(2)]
    for each in writers:
        each.start()
    try:
        statuses = [_forked(in_child) for _ in range(10)]
    finally:
        ending.set()
        for each in writers:
            each.join()

    assert statuses == [0] * 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_begins_with_an_empty_cache_also_on_the_short_way():
    cache: InMemoryCache[Any] = InMemoryCache()

    @cached(cache=cache)
    async def pid() -> int:
        return os.getpid()

    assert asyncio.run(pid()) == asyncio.run(pid()) == os.getpid()

    def in_child() -> None:
        assert asyncio.run(pid()) == os.getpid()

    assert _forked(in_child) == 0
    assert asyncio.run(pid()) == os.getpid()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_closing_in_a_forked_process_empties_its_memory():
    async def open_here() -> None:
        await (await get_cache("shared")).set("k", 1)
        assert _forked(in_child) == 0
        await close_cache()

    def in_child() -> None:
        asyncio.set_event_loop(None)
        asyncio._set_running_loop(None)

        async def use() -> None:
            cache = await get_cache("shared")
            await cache.set("k", 2)
            await close_cache()
            assert await cache.get("k") is None

        asyncio.run(use())

    asyncio.run(open_here())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_renewed_after_a_fork_is_kept_by_nobody():
    class Renewed:
        def __init__(self) -> None:
            self.pid = os.getpid()
            renew_after_fork(self.renew)

        def renew(self) -> None:
            self.pid = os.getpid()

    kept = Renewed()
    for _ in range(3):
        Renewed()

    def in_child() -> None:
        assert kept.pid == os.getpid()

    assert _forked(in_child) == 0
    assert kept.pid == os.getpid()


def _forked(work: Callable[[], None]) -> int:
    """Run work in a forked process; give its exit status, or -1 when it did not end within 20 seconds."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


async def test_workers_without_redis_are_told_once_what_they_do_not_share(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("agent_service.infrastructure.cache.factory._warned", False)
    monkeypatch.setenv("WEB_CONCURRENCY", "2")

    for _ in range(3):
        await get_cache()
        await close_cache()

    assert [each.levelname for each in caplog.records].count("WARNING") == 1
    assert "WEB_CONCURRENCY=2" in caplog.text
    assert "set REDIS_URL" in caplog.text
