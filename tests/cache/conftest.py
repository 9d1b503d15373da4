"""Caches over real servers, each closed after its test, with nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

from agent_service.core.breaker import CircuitBreaker
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackCache
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.leases import LeaseBook
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.redis import GivenServer, RedisServer

T = TypeVar("T")

FOREVER = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then found[#found + 1] = key end
end
return found
"""


@pytest.fixture(autouse=True)
async def nothing_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After each test no task of ours runs, no lease is open, and Redis has no connection, lease or immortal key more.

    A test that stores an entry for ever has "never" in its key or in its own name. Where Redis was cut off it could not
    be told of the end of a lease, which then ends by itself.
    """
    books = remembered(monkeypatch, LeaseBook)
    server = request.getfixturevalue("redis_server") if "redis_server" in request.fixturenames else None
    before = connections(server) if server is not None else set()
    yield
    await close_cache()
    await ended(lambda: asyncio.all_tasks() - {asyncio.current_task()}, "tasks")
    assert sum(map(len, books)) == 0, "leases left open"
    if server is not None:
        await ended(lambda: connections(server) - before, "connections")
        assert "never" in request.node.name or unaccounted_keys(server) == []
        assert "redis_proxy" in request.fixturenames or keys(server, "*%lease:*") == []


def remembered(monkeypatch: pytest.MonkeyPatch, kind: type[T]) -> list[T]:
    """Return a list of the objects of a class, which grows as they are made."""
    made: list[T] = []
    make = kind.__init__

    def make_and_remember(self: T, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(kind, "__init__", make_and_remember)
    return made


async def ended(left: Callable[[], set[Any]], what: str) -> None:
    """Return what is just ending a moment, and fail for what is not."""
    for _ in range(1000):
        if not left():
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{what} left behind: {left()}")


def connections(server: RedisServer | GivenServer) -> set[bytes]:
    """Return the identities of the connections to a server, but for the one that asks."""
    lines = server.cli("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if b"cmd=client" not in line}


def unaccounted_keys(server: RedisServer | GivenServer) -> list[bytes]:
    """Return the keys without a time to live that do not stand on the written list.

    That list: entries set to NEVER, and the tokens of namespaces that have such an entry.
    """
    forever: list[bytes] = server.cli("EVAL", FOREVER, 0)
    entries = [key for key in forever if b"never" in key]
    tokens = [key for key in forever if b"%token:" in key] if entries else []
    return sorted(set(forever) - {*entries, *tokens})


def keys(server: RedisServer | GivenServer, pattern: str) -> list[bytes]:
    """Return the keys of a server that match."""
    found: list[bytes] = server.cli("KEYS", pattern)
    return found


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of the shared, emptied Redis."""
    client = RedisClient(redis_url, timeout=5)
    yield client
    await client.aclose()


def make_fallback(
    client: RedisClient,
    *,
    open_seconds: float = 0.05,
    limit: int = 10_000,
    namespace: str = "",
    clock: Clock = SYSTEM_CLOCK,
    lease_seconds: float = 10.0,
) -> tuple[FallbackCache, Outage]:
    """A fallback cache of its own, with a breaker that tries again soon."""
    outage = Outage(client, CircuitBreaker(open_seconds, max_open_seconds=open_seconds), Journal(limit))
    redis: RedisCache = RedisCache(client, namespace=namespace, lease_seconds=lease_seconds)
    return FallbackCache(redis, InMemoryCache(namespace=namespace, clock=clock), outage), outage


async def recover(cache: FallbackCache, outage: Outage) -> None:
    """Let operations come until Redis serves again, as the traffic of a service would."""
    async with asyncio.timeout(10):
        while not outage.breaker.closed:
            await cache.exists("probe")
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
