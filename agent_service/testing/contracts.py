"""The contract of caches: inherit the class, say what to test, and pytest proves that your backend keeps it.

::

    class TestMyCache(CacheContract):
        @pytest.fixture
        async def cache(self):
            async with make_my_cache() as cache:
                yield cache

Needs pytest and pytest-asyncio in its ``auto`` mode. ``docs/contributing/add-a-cache-backend.md`` builds a cache that
keeps the contract. :class:`~agent_service.testing.cache.machine.CacheMachine` also compares a cache with a dictionary,
over random histories.
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
    """What every :class:`ICache` does. Override the fixture ``cache`` with an empty one.

    :class:`~agent_service.testing.cache.room.CacheRoom` has the other fixtures that may be overridden.
    """
