"""What a rate limit costs and lets through, beside the library limits: ``python -m benchmarks.rate_limits``.

Both on the same Redis and with the same pool size. Seconds are processor time of this process. The library is left out
where it is not installed.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import Any

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import close_cache
from agent_service.infrastructure.limits import Rate, RateLimiter
from benchmarks.timing import print_ratios
from tests.servers.redis import RedisServer

__all__ = ["run"]

CALLS = 300
ROUNDS = 7
TOKENS = 1000

Take = Callable[[str], Awaitable[object]]
STRATEGIES = ("FixedWindow", "SlidingWindowCounter", "MovingWindow")


def theirs(url: str, strategy: str) -> Any:
    storage = import_module("limits.aio.storage").RedisStorage(f"async+{url}", implementation="redispy")
    return getattr(import_module("limits.aio.strategies"), f"{strategy}RateLimiter")(storage)


def per_second(quota: int, seconds: int) -> Any:
    return import_module("limits").RateLimitItemPerSecond(quota, seconds)


async def costs(url: str, weight: int) -> dict[str, float]:
    """Median seconds of one call of a weight that is let through."""
    ours = RateLimiter("bench", Rate(10**9, 60))
    candidates: dict[str, Take] = {"ours": lambda key: ours.take(key, weight)}
    if find_spec("limits"):
        item = per_second(10**6, 60)
        for strategy in STRATEGIES:
            hit = theirs(url, strategy).hit
            candidates[f"limits {strategy}"] = partial(_hit, hit, item, strategy, weight)
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    order, numbers = list(candidates.items()), count()
    for _ in range(ROUNDS):
        for name, take in order:
            started = time.process_time()
            for _ in range(CALLS):
                await take(f"user:{next(numbers) % 50}")
            taken[name].append((time.process_time() - started) / CALLS)
        order.append(order.pop(0))
    return {name: statistics.median(each) for name, each in taken.items()}


async def _hit(hit: Any, item: Any, strategy: str, weight: int, key: str) -> object:
    return await hit(item, strategy, key, cost=weight)


async def let_through(url: str) -> dict[str, int]:
    """The most that passes within 2 seconds of a quota of 100 in 2 seconds, around the end of a window."""
    ours = RateLimiter("boundary", Rate(100, 2))
    candidates: dict[str, Callable[[], Awaitable[bool]]] = {}

    async def take() -> bool:
        return (await ours.take("ann")).taken

    candidates["ours"] = take
    if find_spec("limits"):
        for strategy in STRATEGIES:
            candidates[f"limits {strategy}"] = partial(theirs(url, strategy).hit, per_second(100, 2), strategy)
    return {name: await _most_in_two_seconds(take) for name, take in candidates.items()}


async def _most_in_two_seconds(take: Callable[[], Awaitable[bool]]) -> int:
    await take()  # the first window begins
    passed: list[float] = []
    for pause in (1.8, 0.4, 0.4, 0.4, 0.4):
        await asyncio.sleep(pause)
        passed += [time.monotonic() for _ in range(120) if await take()]
    return max(sum(1 for each in passed if start <= each < start + 2) for start in passed)


async def measure(url: str) -> None:
    for weight in (1, TOKENS):
        print_ratios(f"rate limit, one call of weight {weight} (processor time)", await costs(url, weight))
    print("\n100 in 2 seconds: the most that passed within 2 seconds")
    for name, most in (await let_through(url)).items():
        print(f"  {name:<42}{most:>12}")
    await close_cache()


def run() -> None:
    with RedisServer() as server:
        os.environ["REDIS_URL"], os.environ["REDIS_TIMEOUT"] = server.url, "5"
        reset_settings()
        asyncio.run(measure(server.url))
        used = dict(line.split(b":") for line in server.cli("INFO", "memory").splitlines() if b":" in line)
        print(f"\nRedis used {int(used[b'used_memory_peak']) >> 20} MiB at most")


if __name__ == "__main__":
    run()
