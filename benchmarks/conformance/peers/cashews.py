"""cashews: Redis or memory, tags, client-side caching, early and soft expiry."""

import cashews
from cashews.key import get_cache_key

from benchmarks.conformance.adapter import PLAIN, Adapter, Feature, Function, Options, Staleness, Store

__all__ = ["Cashews"]


class Cashews(Adapter):
    """One ``Cache()`` set up by URL; ``client_side`` for an L1; ``lock=True`` across processes."""

    name = "cashews"
    features = frozenset({Feature.ASYNC, Feature.SERVER, Feature.L1, Feature.TAGS})

    def __init__(self, url: str, store: Store) -> None:
        super().__init__(url, store)
        self._cache = cashews.Cache()
        if store is Store.OWN:
            self._cache.setup("mem://", size=100_000)
        else:
            self._cache.setup(url, client_side=store is Store.NEAR)

    async def __aexit__(self, *_: object) -> None:
        await self._cache.close()

    def cached(self, function: Function, options: Options = PLAIN) -> Function:
        decorated: Function = self._cache(
            ttl=options.ttl,
            tags=(options.tag,) if options.tag else (),
            lock=options.one_process,
            condition="all" if options.cache_none else None,
        )(function)
        return decorated

    async def invalidate(self, function: Function, *args: object) -> None:
        await self._cache.delete(get_cache_key(function, None, args))

    async def invalidate_tag(self, tag: str) -> None:
        await self._cache.delete_tags(tag)

    def stale_served(self, function: Function, staleness: Staleness) -> list[Function]:
        return [
            self._cache.soft(ttl=staleness.ttl + staleness.stale_for, soft_ttl=staleness.ttl)(function),
            self._cache.early(ttl=staleness.ttl, early_ttl=staleness.ttl * staleness.refresh_at)(function),
        ]
