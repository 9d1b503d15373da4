"""A real uvicorn in the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from tests.servers.ports import free_port
from tests.support.waiting import until


@asynccontextmanager
async def serving(app: FastAPI, port: int | None = None) -> AsyncIterator[str]:
    """Serve an application, its lifespan included, and return its URL."""
    port = free_port() if port is None else port
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="on"))
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or running.done())
        yield f"http://127.0.0.1:{port}"
    finally:
        service = app.state.agent_service
        if server.started:
            service.stopping.set()
        server.should_exit = True
        await running
