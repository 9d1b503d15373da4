"""Servers that die, hang and change roles under load; minutes in sum, so only ``make faults`` runs them."""

import asyncio
import time
from collections import Counter

import pytest
import redis

from agent_service.core.errors import RedisOperationError
from agent_service.infrastructure.redis.client import RedisClient
from tests.redis.conftest import Connect
from tests.servers.cluster import running_cluster, url_of
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.faults

TASKS = 100
TIMEOUT = 0.5


class Load:
    """Tasks that read keys whose value is the key itself, and note what they met."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._keys = [b"%d" % number for number in range(500)]
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0

    async def run(self, seconds: float) -> None:
        await self._client.set_many({key: key for key in self._keys})
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._work(number, end) for number in range(TASKS)))

    async def _work(self, number: int, end: float) -> None:
        while time.monotonic() < end:
            key = self._keys[number % len(self._keys)]
            started = time.monotonic()
            try:
                value = await self._read(key, number)
            except RedisOperationError as exc:
                outcome = type(exc).__name__
            else:
                assert value in {key, None}, "somebody else's reply"
                outcome = "answered"
            self.outcomes[outcome] += 1
            self.longest = max(self.longest, time.monotonic() - started)
            number += 7
            if outcome != "answered":
                await asyncio.sleep(0.01)

    async def _read(self, key: bytes, number: int) -> object:
        if number % 3 == 0:
            return await self._client.execute("GET", key)
        if number % 3 == 1:
            return await self._client.get(key)
        value, _ = await self._client.pipeline([("GET", key), ("SET", key, key)])
        return value


async def harm(nodes: list[RedisServer], seconds: float) -> None:
    """Kill and restart, then stop and continue, one node after the other."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        node = nodes[number % len(nodes)]
        await asyncio.sleep(1)
        if number % 2:
            node.stop()
            await asyncio.sleep(0.8)
            node.cont()
        else:
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(node.restart)
        number += 1


async def check_under_load(client: RedisClient, nodes: list[RedisServer]) -> None:
    load = Load(client)
    await asyncio.gather(load.run(62), harm(nodes, 60))

    assert load.outcomes["answered"] > 10_000
    assert load.longest < 2 * TIMEOUT  # the machine is busy, too
    await client.ping()


async def test_a_server_that_dies_and_hangs_for_a_minute(own_redis: RedisServer, connect: Connect):
    await check_under_load(connect(own_redis.url, timeout=TIMEOUT), [own_redis])


async def test_a_cluster_whose_nodes_die_and_hang_for_a_minute(connect: Connect):
    with running_cluster() as nodes:
        client = connect(url_of(nodes), timeout=TIMEOUT)
        await check_under_load(client, nodes)
        await client.aclose()


async def test_a_failover_by_sentinels_is_followed(own_redis: RedisServer, connect: Connect):
    with (
        RedisServer(("replicaof", f"127.0.0.1 {own_redis.port}")) as replica,
        RedisServer(sentinel=True) as sentinel,
    ):
        replica.wait_until("replication", "master_link_status:up")
        sentinel.cli("SENTINEL", "MONITOR", "main", "127.0.0.1", own_redis.port, 1)
        client = connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        await client.execute("SET", b"before", 1)
        await ask_for_failover(sentinel)

        async with asyncio.timeout(30):
            while b"role:slave" not in own_redis.cli("INFO", "replication"):
                await asyncio.sleep(0.1)
            while not await written(client):
                await asyncio.sleep(0.1)

        assert replica.cli("GET", "after") == b"1"
        await client.aclose()


async def ask_for_failover(sentinel: RedisServer) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                sentinel.cli("SENTINEL", "FAILOVER", "main")
            except redis.ResponseError:  # it has not heard from the replica yet
                await asyncio.sleep(0.1)
            else:
                return


async def written(client: RedisClient) -> bool:
    try:
        await client.execute("SET", b"after", 1)
    except RedisOperationError:
        return False
    return True
