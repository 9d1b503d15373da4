"""async-lru: memory of one event loop."""

from typing import Any

import async_lru

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options

__all__ = ["AsyncLru"]


class AsyncLru(Adapter):
    """``@alru_cache``."""

    name = "async-lru"
    features = frozenset({Feature.ASYNC})

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        decorated: Function = async_lru.alru_cache(maxsize=100_000, ttl=options.ttl)(function)
        return decorated

    async def invalidate(self, function: Any, *args: object) -> None:
        function.cache_invalidate(*args)
