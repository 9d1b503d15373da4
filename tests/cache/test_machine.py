"""Any history of calls gives on every cache what it gives on a dictionary."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from agent_service.infrastructure.cache.interface import ICache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.cache.machine import CacheMachine
from agent_service.testing.clock import FakeClock
from tests.servers.ports import free_port
from tests.servers.redis import GivenServer, RedisServer
from tests.support.caches import make_fallback

LATER = """
local passed = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left <= passed then
    redis.call('DEL', key)
  elseif left >= 0 then
    redis.call('PEXPIRE', key, left - passed)
  end
end
"""
"""Let milliseconds pass for every key of a server."""


class MemoryMachine(CacheMachine):
    async def open(self) -> ICache[Any]:
        self.clock = FakeClock()
        return InMemoryCache(clock=self.clock)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class MemoryOfBytesMachine(MemoryMachine):
    async def open(self) -> ICache[Any]:
        self.clock = FakeClock()
        return InMemoryCache(max_bytes=1 << 20, clock=self.clock, namespace="of bytes")


class RedisMachine(CacheMachine):
    server: RedisServer | GivenServer

    async def open(self) -> ICache[Any]:
        self.server.cli("FLUSHDB")
        self.client = RedisClient(self.server.url, timeout=10)
        return self.make()

    def make(self) -> ICache[Any]:
        return RedisCache(self.client)

    async def advance(self, seconds: float) -> None:
        self.server.cli("EVAL", LATER, 0, round(seconds * 1000))

    async def close(self, cache: ICache[Any]) -> None:
        await cache.aclose()
        await self.client.aclose()
        self.server.cli("FLUSHDB")  # some of the entries never expire


class AwkwardRedisMachine(RedisMachine):
    def make(self) -> ICache[Any]:
        return RedisCache(self.client, prefix="a:[b]*", namespace="x:y?%{z}", compress_above=10)


class FallbackMachine(RedisMachine):
    def make(self) -> ICache[Any]:
        cache, self.outage = make_fallback(self.client)
        return cache

    async def close(self, cache: ICache[Any]) -> None:
        await super().close(cache)
        assert self.outage.breaker.closed, "Redis was up all the time"


class OutageMachine(CacheMachine):
    """Redis is away all the time."""

    async def open(self) -> ICache[Any]:
        self.clock = FakeClock()
        self.client = RedisClient(f"redis://127.0.0.1:{free_port()}/0")
        cache, self.outage = make_fallback(self.client, open_seconds=60, clock=self.clock)
        return cache

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def close(self, cache: ICache[Any]) -> None:
        await cache.aclose()
        await self.outage.aclose()
        await self.client.aclose()


IN_MEMORY = [MemoryMachine, MemoryOfBytesMachine, OutageMachine]
IN_REDIS = [RedisMachine, AwkwardRedisMachine, FallbackMachine]


def play(machine: type[CacheMachine], histories: int, calls: int) -> None:
    options = settings(
        max_examples=histories, stateful_step_count=calls, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=options)


def over(redis_server: RedisServer | GivenServer, machine: type[RedisMachine]) -> type[RedisMachine]:
    return type(machine.__name__, (machine,), {"server": redis_server})


@pytest.mark.parametrize("machine", IN_MEMORY)
def test_a_history_in_memory_gives_what_a_dictionary_gives(machine: type[CacheMachine]):
    play(machine, 12, 30)


@pytest.mark.parametrize("machine", IN_REDIS)
def test_a_history_in_redis_gives_what_a_dictionary_gives(
    machine: type[RedisMachine], redis_server: RedisServer | GivenServer
):
    play(over(redis_server, machine), 5, 30)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("machine", IN_MEMORY)
def test_a_thousand_histories_in_memory_give_what_a_dictionary_gives(machine: type[CacheMachine]):
    play(machine, 1000, 80)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("machine", IN_REDIS)
def test_hundreds_of_histories_in_redis_give_what_a_dictionary_gives(
    machine: type[RedisMachine], redis_server: RedisServer | GivenServer
):
    play(over(redis_server, machine), 300, 60)
