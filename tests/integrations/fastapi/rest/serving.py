"""A real uvicorn, or hypercorn, in the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import hypercorn
import hypercorn.asyncio
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


@asynccontextmanager
async def serving_by_hypercorn(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application by hypercorn."""
    port, end = free_port(), asyncio.Event()
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    serve: Any = hypercorn.asyncio.serve
    running = asyncio.create_task(serve(app, config, shutdown_trigger=end.wait))
    try:
        await until(lambda: running.done() or accepts(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        end.set()
        await running


async def accepts(port: int) -> bool:
    with suppress(ConnectionRefusedError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False
