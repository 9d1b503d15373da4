"""cachebox: memory, in Rust."""

from typing import Any

import cachebox

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options

__all__ = ["Cachebox"]


class Cachebox(Adapter):
    """``@cached`` over a ``TTLCache``."""

    name = "cachebox"
    features = frozenset({Feature.ASYNC})

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        decorated: Function = cachebox.cached(cachebox.TTLCache(100_000, options.ttl))(function)
        return decorated

    async def invalidate(self, function: Any, *args: object) -> None:
        function.cache.pop(cachebox.make_key(*args), None)
