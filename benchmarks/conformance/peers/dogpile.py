"""dogpile.cache: synchronous, Redis or memory. Its callers are threads here, and its loads run in them."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from dogpile.cache import make_region
from dogpile.cache.util import kwarg_function_key_generator

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options, Staleness, Store

__all__ = ["Dogpile"]

THREADS = 128


class Dogpile(Adapter):
    """``cache_on_arguments`` with the key generator that knows keywords; in Redis, with its distributed lock."""

    name = "dogpile.cache"
    features = frozenset({Feature.SERVER})

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        return self._decorate(function, self._region(options.ttl))

    async def invalidate(self, function: Any, *args: object) -> None:
        await self._loop.run_in_executor(self._threads, function.decorated.invalidate, *args)

    def stale_served(self, function: Function, staleness: Staleness) -> list[Function]:
        def create_later(region: Any, key: Any, creator: Callable[[], Any], mutex: Any) -> None:
            def create() -> None:
                try:
                    region.set(key, creator())
                finally:
                    mutex.release()

            self._threads.submit(create)

        region = self._region(staleness.ttl * staleness.refresh_at, async_creation_runner=create_later)
        return [self._decorate(function, region)]

    def _region(self, seconds: float, **options: Any) -> Any:
        region = make_region(function_key_generator=kwarg_function_key_generator, **options)
        if self.store is Store.OWN:
            return region.configure("dogpile.cache.memory", expiration_time=seconds)
        arguments = {"url": self.url, "distributed_lock": True, "thread_local_lock": False}
        return region.configure("dogpile.cache.redis", expiration_time=seconds, arguments=arguments)

    def _decorate(self, function: Function, region: Any) -> Function:
        @functools.wraps(function)
        def creator(*args: Any, **kwargs: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._loop).result()

        vars(creator)["__signature__"] = inspect.signature(function)
        decorated = region.cache_on_arguments()(creator)

        async def call(*args: object, **kwargs: object) -> object:
            return await self._loop.run_in_executor(self._threads, functools.partial(decorated, *args, **kwargs))

        vars(call)["decorated"] = decorated
        return call
