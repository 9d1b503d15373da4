"""The tenants' rooms on every server at hand, with every key accounted for after each test."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.tenants import handlers
from agent_service.tenants.keys import PERMANENT_KINDS, KeyFactory
from tests.servers.redis import GivenServer, RedisServer, wheel_binary
from tests.support.leftovers import immortal_keys


@pytest.fixture(scope="session", params=["the newest at hand", "6.2"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | GivenServer]:
    """The shared server of all tests, and the oldest one that is supported."""
    if request.param != "6.2":
        yield request.getfixturevalue("redis_server")
        return
    binary = wheel_binary()
    if binary is None:
        pytest.skip("no redis-server 6.2: install the extra 'servers'")
    with RedisServer(binary=binary) as old:
        yield old


@pytest.fixture
def url(server: RedisServer | GivenServer) -> str:
    """The URL of the server, emptied."""
    server.cli("FLUSHALL" if isinstance(server, RedisServer) else "FLUSHDB")
    return server.url


@pytest.fixture
def nodes(server: RedisServer | GivenServer) -> Sequence[RedisServer | GivenServer]:
    """Everything that holds keys of the test: one server here, several for a cluster."""
    return [server]


@pytest.fixture(autouse=True)
async def house(
    url: str, nodes: Sequence[RedisServer | GivenServer], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Settings that lead to the server; afterwards no task is left, and no key that lives forever unannounced."""
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_TIMEOUT", "10")
    reset_settings()
    yield
    await close_redis()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [key for node in nodes for key in permanent_keys(node)] == []


@pytest.fixture(autouse=True)
def no_handlers() -> Iterator[None]:
    """Handlers of triggers that one test registers are no handlers of the next."""
    before = dict(handlers._handlers)
    handlers._handlers.clear()
    yield
    handlers._handlers.clear()
    handlers._handlers.update(before)


@pytest.fixture
async def client() -> RedisClient:
    """The client that the repositories use."""
    return (await get_redis_manager()).client


def permanent_keys(server: RedisServer | GivenServer) -> list[bytes]:
    """Keys of the server that never expire and do not stand on the written list."""
    parsed = {key: KeyFactory().parse(key) for key in immortal_keys(server)}
    return [key for key, parts in parsed.items() if parts is None or parts.kind not in PERMANENT_KINDS]
