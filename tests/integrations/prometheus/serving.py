"""Applications that tests serve."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
from fastapi import FastAPI

from tests.servers.ports import free_port


@asynccontextmanager
async def served(app: object, lifespan: Literal["auto", "on"] = "auto") -> AsyncIterator[str]:
    """Serve an ASGI application by uvicorn on this event loop; give where."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan=lifespan))  # type: ignore[arg-type]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


def mounted(metrics: object) -> FastAPI:
    """Return an application with metrics mounted in it."""
    app = FastAPI()
    app.mount("/metrics", metrics)  # type: ignore[arg-type]
    return app
