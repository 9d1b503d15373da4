"""The contract on a real Redis Cluster of three nodes, with and without memory in front of it.

redis-py's cluster client takes its time to learn the slots. So the tests share one, and the event loop that it is of.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.contracts import CacheContract
from tests.cache.conftest import leaving_nothing
from tests.servers.cluster import url_of
from tests.servers.redis import RedisServer
from tests.support.caches import make_fallback
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_client(cluster: list[RedisServer]) -> AsyncIterator[RedisClient]:
    client = RedisClient(url_of(cluster), timeout=5)
    yield client
    await client.aclose()


@pytest.fixture
def cluster_client(cluster_url: str, shared_client: RedisClient) -> RedisClient:
    """The shared client of the cluster, which ``cluster_url`` has emptied."""
    return shared_client


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    async with leaving_nothing(request, monkeypatch):
        yield


class OnTheSharedLoop(CacheContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def again(self, cache: ICache[Any]) -> ICache[Any]:  # type: ignore[override]
        return cache

    @pytest_asyncio.fixture(loop_scope="module")
    async def neighbour(self, cluster_client: RedisClient) -> ICache[Any]:  # type: ignore[override]
        return RedisCache(cluster_client, namespace="neighbour")


class TestFallbackOverACluster(OnTheSharedLoop):
    @pytest_asyncio.fixture(loop_scope="module")
    async def cache(self, cluster_client: RedisClient) -> AsyncIterator[ICache[Any]]:  # type: ignore[override]
        cache, outage = make_fallback(cluster_client, namespace="x:{y}%z")
        yield cache
        await cache.aclose()
        assert outage.breaker.closed, "the cluster was up all the time"


class TestTieredOverACluster(OnTheSharedLoop):
    @pytest_asyncio.fixture(loop_scope="module")
    async def cache(self, cluster_client: RedisClient) -> AsyncIterator[ICache[Any]]:  # type: ignore[override]
        feed = NearFeed(cluster_client)
        cache: TieredCache[Any] = TieredCache(RedisCache(cluster_client), feed)
        await until(lambda: feed.clock() < float("inf"))
        yield cache
        await cache.aclose()
        await feed.aclose()
