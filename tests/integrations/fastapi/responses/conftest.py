"""Applications with cached routes, each on memory or on a real Redis, with nothing left behind."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.integrations.fastapi import CachedRoute


@pytest.fixture(params=["memory", "redis"])
async def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The settings of a service with and without Redis."""
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        monkeypatch.setenv("REDIS_TIMEOUT", "5")
        reset_settings()
    yield request.param
    await close_cache()


@pytest.fixture
async def memory() -> AsyncIterator[None]:
    """The settings of a service without Redis."""
    yield
    await close_cache()


@pytest.fixture
def app() -> FastAPI:
    """An application whose routes may be cached."""
    app = FastAPI()
    app.router.route_class = CachedRoute
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with client_of(app) as client:
        yield client


def client_of(app: FastAPI, **more: Any) -> httpx.AsyncClient:
    """Return a client of an application that sends nothing by itself."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app, **more), base_url="http://api.test")
    client.headers = httpx.Headers()
    return client


class Counted:
    """Counts how often an endpoint ran."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


@pytest.fixture
def counted() -> Counted:
    return Counted()


Make = Callable[..., Any]
