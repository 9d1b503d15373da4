"""Servers of our own whose users may do less than everything."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache
from tests.servers.redis import RedisServer, wheel_binary
from tests.support.acl import PASSWORD, USER

Use = Callable[..., None]


@pytest.fixture(scope="session", params=["the newest at hand", "6.2"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of each version at hand."""
    binary = wheel_binary() if request.param == "6.2" else None
    if request.param == "6.2" and binary is None:
        pytest.skip("no redis-server 6.2: install the extra 'servers'")
    with RedisServer(binary=binary) as running:
        yield running


@pytest.fixture
async def use(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    """Sets REDIS_URL and further settings; afterwards everything is closed and no task is left."""

    def set_url(url: str, **settings: str) -> None:
        for name, value in {"REDIS_URL": url, "REDIS_TIMEOUT": "5", **settings}.items():
            monkeypatch.setenv(name, value)
        reset_settings()

    yield set_url
    await close_cache()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def as_user(server: RedisServer, use: Use) -> Iterator[Callable[..., None]]:
    """Makes the user with these rules, or changes the rules, and lets the package log in as that user."""
    server.cli("FLUSHALL")
    server.cli("SCRIPT", "FLUSH")

    def permit(*rules: str, **settings: str) -> None:
        server.cli("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules)
        use(server.url.replace("redis://", f"redis://{USER}:{PASSWORD}@"), **settings)

    yield permit
    server.cli("ACL", "DELUSER", USER)
