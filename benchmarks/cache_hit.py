"""What a decorated hit in memory costs, against a bare coroutine and the peers: ``python -m benchmarks.cache_hit``."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiocache
import async_lru
import cachebox
import cashews

from agent_service.infrastructure.cache import InMemoryCache, cached
from benchmarks.timing import print_ratios, seconds_per_call

VALUES: dict[str, object] = {
    "an immutable value (a str)": "x" * 50,
    "a mutable value (a dict of 5)": {"id": 7, "name": "Ann", "roles": ["a", "b"], "active": True, "score": 1.5},
}


async def measure(value: object) -> dict[str, float]:
    """Nanoseconds are those of ``await f(7)``, where all but the first are hits."""

    async def bare(_n: int) -> object:
        return value

    peers = cashews.Cache()
    peers.setup("mem://")
    decorators: dict[str, Callable[[Any], Callable[[int], Awaitable[object]]]] = {
        "a bare coroutine": lambda f: f,
        "agent_service @cached": cached(ttl=300, cache=InMemoryCache()),
        "cachebox 6.2 @cached(TTLCache)": cachebox.cached(cachebox.TTLCache(1000, 300)),
        "async-lru 2.4 @alru_cache(ttl)": async_lru.alru_cache(maxsize=1000, ttl=300),
        "aiocache 0.12 @cached(ttl)": aiocache.cached(ttl=300),
        "cashews 7.6 @cache(ttl)": peers(ttl="300s"),
    }
    functions = {name: decorate(bare) for name, decorate in decorators.items()}
    for function in functions.values():
        await function(7)
    try:
        return await seconds_per_call(functions, 7, calls=20_000)
    finally:
        await peers.close()


def run() -> None:
    """Print the tables."""
    for title, value in VALUES.items():
        seconds = asyncio.run(measure(value))
        print_ratios(f"A decorated hit in memory, {title}", seconds)


if __name__ == "__main__":
    run()
