"""The contract of caches: inherit the class, say what to test, and pytest proves that a backend of yours keeps it.

::

    class TestMyCache(CacheContract):
        @pytest.fixture
        async def cache(self):
            async with make_my_cache() as cache:
                yield cache

Needs pytest and pytest-asyncio in its ``auto`` mode. Besides, over random histories,
:class:`~agent_service.testing.cache.machine.CacheMachine` compares a cache with a dictionary.
"""

from agent_service.testing.cache.basics import CacheBasics
from agent_service.testing.cache.bulk import CacheBulkLoads
from agent_service.testing.cache.counters import CacheCounters
from agent_service.testing.cache.fences import CacheFences
from agent_service.testing.cache.keeping import CacheKeeping
from agent_service.testing.cache.loads import CacheLoads
from agent_service.testing.cache.refusals import CacheRefusals
from agent_service.testing.cache.staleness import CacheStaleness
from agent_service.testing.cache.tags import CacheTags

__all__ = ["CacheContract"]


class CacheContract(
    CacheBasics,
    CacheCounters,
    CacheTags,
    CacheLoads,
    CacheFences,
    CacheBulkLoads,
    CacheKeeping,
    CacheStaleness,
    CacheRefusals,
):
    """What every :class:`ICache` does. ``cache`` is an empty one."""
