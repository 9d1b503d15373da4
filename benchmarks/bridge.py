"""What a blocking call costs a thread: the bridge against a bare hop to the loop and back, and against the raw call."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable

from agent_service.core.bridge import SyncBridge
from benchmarks.timing import print_ratios

CALLS = 2000
ROUNDS = 9


async def nothing() -> None:
    """What is awaited."""


def run() -> None:
    """Print microseconds a call of one thread to an idle loop."""
    print_ratios("A thread awaits a coroutine that does nothing", asyncio.run(_measured()))


async def _measured() -> dict[str, float]:
    loop = asyncio.get_running_loop()
    bridge = SyncBridge(loop)
    candidates: dict[str, Callable[[], object]] = {
        "run_coroutine_threadsafe(...).result()": lambda: asyncio.run_coroutine_threadsafe(nothing(), loop).result(30),
        "SyncBridge.run": lambda: bridge.run(nothing()),
        "a hop to the loop and back, no coroutine": lambda: _hop(loop),
    }
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, call in candidates.items():
            taken[name].append(await asyncio.to_thread(_seconds_per_call, call))
    return {name: statistics.median(each) for name, each in taken.items()}


def _seconds_per_call(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS


def _hop(loop: asyncio.AbstractEventLoop) -> None:
    lock = threading.Lock()
    lock.acquire()
    loop.call_soon_threadsafe(lock.release)
    lock.acquire()


if __name__ == "__main__":
    run()
