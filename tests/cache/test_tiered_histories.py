"""Memory in front of Redis: alone it equals a dictionary; beside others it is never staler than its bound."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.cache.test_machine import RedisMachine, over, play
from tests.cache.test_races import Stress
from tests.servers.redis import GivenServer, RedisServer
from tests.support.caches import make_fallback
from tests.support.waiting import until

BOUND = 0.2
"""Seconds."""


class TieredMachine(RedisMachine):
    async def open(self) -> ICache[Any]:
        self.server.cli("FLUSHDB")
        self.client = RedisClient(self.server.url, timeout=10)
        self.feed = NearFeed(self.client, max_staleness=0.05)
        cache: TieredCache[Any] = TieredCache(make_fallback(self.client)[0], self.feed)
        await until(lambda: self.feed.clock() < float("inf"))
        return cache

    async def advance(self, seconds: float) -> None:
        """Time passes in Redis; wait for a heartbeat that proves that all of it was heard."""
        await super().advance(seconds)
        passed = time.monotonic()
        stream = self.feed._stream
        await until(lambda: stream.trusted_until > passed + stream.max_staleness)

    async def close(self, cache: ICache[Any]) -> None:
        await self.feed.aclose()
        await super().close(cache)


def test_a_history_gives_what_a_dictionary_gives(redis_server: RedisServer | GivenServer):
    play(over(redis_server, TieredMachine), 10, 30)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_hundreds_of_histories_give_what_a_dictionary_gives(redis_server: RedisServer | GivenServer):
    play(over(redis_server, TieredMachine), 300, 60)


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[list[TieredCache[Any]]]:
    clients = [RedisClient(redis_url, timeout=5) for _ in range(2)]
    feeds = [NearFeed(each, max_staleness=BOUND) for each in clients]
    yield [TieredCache(RedisCache(client), feed) for client, feed in zip(clients, feeds, strict=True)]
    for feed in feeds:
        await feed.aclose()
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.faults)])
async def test_two_processes_under_load_never_see_what_was_invalidated_longer_ago_than_the_bound(
    pair: list[TieredCache[Any]], seconds: float
):
    def from_copies() -> int:
        return sum(each.counters.l1.hits for each in pair)

    def rejected() -> int:
        return sum(each.counters.fill_rejected for each in pair)

    def enough(run: Stress) -> bool:
        return run.reads > 100 * seconds and from_copies() > 5 * seconds and rejected() > 0

    stress = Stress(pair, tolerance=BOUND, enough=enough)

    await stress.run(seconds)

    assert stress.wrong == []
    assert stress.reads > 100 * seconds
    assert from_copies() > 5 * seconds
    assert rejected() > 0


async def test_one_process_alone_sees_its_own_invalidations_at_once(pair: list[TieredCache[Any]]):
    stress = Stress(pair[:1], enough=lambda _: pair[0].counters.l1.hits > 0)

    await stress.run(2)

    assert stress.wrong == []
    assert pair[0].counters.l1.hits > 0
