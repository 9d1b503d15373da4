"""theine: memory, W-TinyLFU."""

import functools
from datetime import timedelta
from typing import Any

import theine

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options

__all__ = ["Theine"]


class Theine(Adapter):
    """``@Memoize`` with the keys it makes by itself, those of ``functools.lru_cache``."""

    name = "theine"
    features = frozenset({Feature.ASYNC})

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        memoized: Any = theine.Memoize(100_000, timedelta(seconds=options.ttl))(function)

        async def call(*args: object, **kwargs: object) -> object:
            return await memoized(*args, **kwargs)

        vars(call)["memoized"] = memoized
        return call

    async def invalidate(self, function: Any, *args: object) -> None:
        key = functools._make_key(args, {}, False)  # noqa: SLF001 - as theine does itself
        function.memoized._cache.delete(key)  # noqa: SLF001 - it has no other way
