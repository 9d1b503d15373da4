"""Caches over real servers, each closed after its test, with nothing left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.cache.leases import LeaseBook
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy
from tests.servers.redis import GivenServer, RedisServer
from tests.support.caches import Pair, make_fallback
from tests.support.leftovers import connections, immortal_keys, keys, remembered
from tests.support.waiting import ended


@pytest.fixture(autouse=True)
async def nothing_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """After each test nothing of it is left, see :func:`leaving_nothing`."""
    async with leaving_nothing(request, monkeypatch):
        yield


@asynccontextmanager
async def leaving_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """At the end no task of ours runs, no lease is open, and Redis has no connection, lease or immortal key more.

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


def unaccounted_keys(server: RedisServer | GivenServer) -> list[bytes]:
    """Return the keys without a time to live that do not stand on the written list.

    That list: entries set to NEVER, and the tokens of namespaces that have such an entry.
    """
    forever = immortal_keys(server)
    entries = [key for key in forever if b"never" in key]
    tokens = [key for key in forever if b"%token:" in key] if entries else []
    return sorted(set(forever) - {*entries, *tokens})


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of the shared, emptied Redis."""
    client = RedisClient(redis_url, timeout=5)
    yield client
    await client.aclose()


@pytest.fixture
async def behind_proxy(redis_proxy: TcpProxy) -> AsyncIterator[Pair]:
    """A fallback cache whose Redis keeps its data while the way to it is cut, and the outage that it notices."""
    client = RedisClient(redis_proxy.url, timeout=0.5)
    cache, outage = make_fallback(client)
    yield cache, outage
    redis_proxy.resume()
    await cache.aclose()
    await outage.aclose()
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
async def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The settings of a service with and without Redis."""
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        monkeypatch.setenv("REDIS_TIMEOUT", "5")
        reset_settings()
    yield request.param
    await close_cache()
