"""aiocache: Redis or memory."""

from typing import Any
from urllib.parse import urlsplit

import aiocache

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options, Store

__all__ = ["Aiocache"]


class Aiocache(Adapter):
    """``@cached``, and ``@cached_stampede`` with its lock in Redis across processes."""

    name = "aiocache"
    features = frozenset({Feature.ASYNC, Feature.SERVER})

    def __init__(self, url: str, store: Store) -> None:
        super().__init__(url, store)
        self._decorators: dict[Function, tuple[Any, Function]] = {}

    async def __aexit__(self, *_: object) -> None:
        for decorated, _function in self._decorators.values():
            await decorated.cache.close()

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        where: dict[str, Any] = {}
        if self.store is not Store.OWN:
            address = urlsplit(self.url)
            where = {"cache": aiocache.Cache.REDIS, "endpoint": address.hostname, "port": address.port}
        kind = aiocache.cached_stampede if options.one_process else aiocache.cached
        decorator = kind(ttl=options.ttl, **where)
        decorated: Function = decorator(function)
        self._decorators[decorated] = decorator, function
        return decorated

    async def invalidate(self, function: Function, *args: object) -> None:
        decorator, plain = self._decorators[function]
        await decorator.cache.delete(decorator.get_cache_key(plain, args, {}))
