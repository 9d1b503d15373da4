"""Applications that run within a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from agent_service.integrations.fastapi import AgentService


def served(service: AgentService) -> FastAPI:
    """Return an application of a service."""
    app = FastAPI(lifespan=service.lifespan)
    service.install(app)
    return app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application's lifespan, and give a client of it."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
