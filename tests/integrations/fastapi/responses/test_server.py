"""Cached routes behind a real server: what goes over the wire."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from agent_service.infrastructure.limits import RateLimiter
from agent_service.integrations.fastapi import RateLimitHeaders, cache_response, rate_limit
from tests.integrations.fastapi.responses.conftest import Counted
from tests.servers.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("memory")


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The address of the application behind uvicorn; tests add its routes before the first request."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


async def test_hits_heads_and_304s_leave_the_connection_usable(app: FastAPI, url: str, counted: Counted):
    app.add_middleware(RateLimitHeaders)
    limiter = RateLimiter("server", "99/minute")

    @app.api_route(
        "/", methods=["GET", "HEAD"], dependencies=[Depends(rate_limit(limiter)), Depends(cache_response(60))]
    )
    async def read() -> str:
        return f"content {counted()}"

    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=1)) as client:
        first = await client.get("/")
        again = await client.get("/")
        head = await client.head("/")
        unchanged = await client.get("/", headers={"If-None-Match": first.headers["etag"]})
        last = await client.get("/")

    assert first.json() == again.json() == last.json() == "content 1"
    assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == first.headers["etag"]
    assert "date" in unchanged.headers
    assert [each.headers["ratelimit"].split(";")[1] for each in (first, again, head, unchanged, last)] == [
        "r=98", "r=97", "r=96", "r=95", "r=94",
    ]  # fmt: skip


async def test_a_client_that_leaves_ends_its_stream(app: FastAPI, url: str):
    ended = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            try:
                while True:
                    yield "data: tick\n\n"
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async with httpx.AsyncClient(base_url=url) as client, client.stream("GET", "/") as response:
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == ["data: tick", "", "data: tick"]
        ended.clear()  # the load that found out that it streams has ended, too

    await asyncio.wait_for(ended.wait(), 60)


async def test_many_clients_of_a_slow_route_make_one_load(app: FastAPI, url: str, counted: Counted):
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        number = counted()
        await gate.wait()
        return number

    async with httpx.AsyncClient(base_url=url) as client:
        waiting = [asyncio.create_task(client.get("/")) for _ in range(20)]
        await until(lambda: counted.calls == 1)
        gate.set()
        assert {(await each).json() for each in waiting} == {1}
