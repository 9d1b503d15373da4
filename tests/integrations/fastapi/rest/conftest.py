"""An application with the REST API on a database of each engine, and clients of several users."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from agent_service.integrations.fastapi import AgentService
from agent_service.integrations.fastapi.sessions import Caller, sessions_router

As = Callable[..., httpx.AsyncClient]
"""Returns a client that speaks for a user: ``as_("ada", tenant="acme", staff="1")``."""


def tenant_of(connection: HTTPConnection) -> str:
    return connection.headers.get("x-tenant", "")


async def authorize(
    scopes: SecurityScopes,
    x_user: Annotated[str | None, Header()] = None,
    x_tenant: Annotated[str, Header()] = "",
    x_staff: Annotated[bool, Header()] = False,
    x_denied: Annotated[str, Header()] = "",
) -> Caller:
    if x_user is None:
        raise HTTPException(401, "say who you are", headers={"WWW-Authenticate": "Bearer"})
    if x_denied in scopes.scopes:
        raise HTTPException(403, f"not {x_denied}")
    return Caller(user_id=x_user, tenant_id=x_tenant, every_user=x_staff)


@lru_cache(maxsize=16)
def routes(**options: Any) -> tuple[BaseRoute, ...]:
    """Return what an application has with the REST API and lacks without it.

    It is made once for its options: to make it costs more than most of the tests, and it keeps nothing of a request.
    """
    app = FastAPI()
    without = len(app.router.routes)
    app.include_router(sessions_router(**options))
    return tuple(app.router.routes[without:])


def application(database: Any, *, shared: bool = True, **options: Any) -> tuple[FastAPI, AgentService]:
    """Return an application with nothing but the REST API, and its service.

    :param shared: with routes of other applications, whose dependencies cannot be overridden.
    """
    service = AgentService(cache=False, database=database, tenant=tenant_of)
    app = FastAPI(lifespan=service.lifespan)
    service.install(app)
    options = {"authorize": authorize} | options
    if shared:
        app.router.routes.extend(routes(**options))
    else:
        app.include_router(sessions_router(**options))
    return app, service


def headers_of(user: str | None, **more: str) -> dict[str, str]:
    return {f"x-{name}": value for name, value in more.items()} | ({} if user is None else {"x-user": user})


@pytest.fixture
async def service(app: FastAPI) -> AgentService:
    """The service of the application that runs."""
    running: AgentService = app.state.agent_service
    return running


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    """The application, with its service running."""
    app, service = application(database_url)
    async with service.lifespan(app):
        yield app


@pytest.fixture
async def as_(app: FastAPI) -> AsyncIterator[As]:
    """Clients of the application, without a server between."""
    async with AsyncExitStack() as clients:

        def client(user: str | None, **more: str) -> httpx.AsyncClient:
            made = httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://service", headers=headers_of(user, **more)
            )
            clients.push_async_callback(made.aclose)
            return made

        yield client


@pytest.fixture
def ada(as_: As) -> httpx.AsyncClient:
    """A client of the user ada."""
    return as_("ada")


async def begin(client: httpx.AsyncClient, *contents: str, **fields: Any) -> str:
    """Create a session with some messages, and return its path."""
    created = await client.post("/sessions", json=fields)
    assert created.status_code == 201, created.text
    path: str = created.headers["location"]
    for content in contents:
        said = await client.post(f"{path}/messages", json={"role": "user", "content": content})
        assert said.status_code == 201, said.text
    return path
