"""After each test of this room: no task is left, and no connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from tests.redis.listener import Listener
from tests.servers.redis import GivenServer, RedisServer
from tests.support.certificates import make_certificate
from tests.support.leftovers import open_sockets


@pytest_asyncio.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    before = open_sockets()
    yield
    here = asyncio.current_task()
    left = {task for task in asyncio.all_tasks() if task is not here}
    assert not left
    await asyncio.sleep(0)  # a closed transport gives up its socket in the next tick
    assert open_sockets() <= before


Connect = Callable[..., RedisClient]


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes clients and closes them at the end of the test."""
    async with AsyncExitStack() as stack:

        def make(url: str, **limits: Any) -> RedisClient:
            client = RedisClient(url, **{"timeout": 2, **limits})
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest_asyncio.fixture
async def client(redis_url: str, redis_server: RedisServer | GivenServer) -> AsyncIterator[RedisClient]:
    """A client of the shared, emptied server; when it was closed, none of its connections is left."""
    client = RedisClient(f"{redis_url}?client_name=under-test", timeout=5)
    yield client
    await client.aclose()
    deadline = time.monotonic() + 2
    while b"name=under-test" in redis_server.cli("CLIENT", "LIST"):
        assert time.monotonic() < deadline, "the client left a connection open"


@pytest_asyncio.fixture
async def manager(client: RedisClient) -> AsyncIterator[RedisManager]:
    """A manager over that client."""
    manager = RedisManager(None, client=client, metrics=client.metrics)
    yield manager
    await manager.aclose()


Listen = Callable[..., Listener]


@pytest_asyncio.fixture
async def listen(connect: Connect) -> AsyncIterator[Listen]:
    """Makes started listeners, each with a client of its own, and closes them at the end of the test."""
    async with AsyncExitStack() as stack:

        def make(url: str, *prefixes: bytes, max_staleness: float = 1.0, timeout: float = 1.0) -> Listener:
            listener = Listener(connect(url, timeout=timeout), *prefixes, max_staleness=max_staleness)
            stack.push_async_callback(listener.stream.aclose)
            listener.stream.start()
            return listener

        yield make


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1; its key is ``key.pem`` beside it."""
    return make_certificate(tmp_path)
