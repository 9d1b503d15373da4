"""The contract on a real Redis Cluster of three nodes, with and without memory in front of it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.contracts import CacheContract
from tests.redis.cluster import running_cluster
from tests.servers.redis import RedisServer
from tests.support.caches import make_fallback
from tests.support.waiting import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    with running_cluster() as nodes:
        yield nodes


@pytest.fixture
async def cluster_client(cluster: list[RedisServer]) -> AsyncIterator[RedisClient]:
    for node in cluster:
        node.cli("FLUSHALL")
    client = RedisClient("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster), timeout=5)
    yield client
    await client.aclose()


class TestFallbackOverACluster(CacheContract):
    @pytest.fixture
    async def cache(self, cluster_client: RedisClient) -> AsyncIterator[ICache]:
        cache, outage = make_fallback(cluster_client, namespace="x:{y}%z")
        yield cache
        await cache.aclose()
        assert outage.breaker.closed, "the cluster was up all the time"

    @pytest.fixture
    async def neighbour(self, cluster_client: RedisClient) -> ICache:
        return RedisCache(cluster_client, namespace="neighbour")


class TestTieredOverACluster(CacheContract):
    @pytest.fixture
    async def cache(self, cluster_client: RedisClient) -> AsyncIterator[ICache]:
        feed = NearFeed(cluster_client)
        cache: TieredCache[Any] = TieredCache(RedisCache(cluster_client), feed)
        await until(lambda: feed.clock() < float("inf"))
        yield cache
        await cache.aclose()
        await feed.aclose()

    @pytest.fixture
    async def neighbour(self, cluster_client: RedisClient) -> ICache:
        return RedisCache(cluster_client, namespace="neighbour")
