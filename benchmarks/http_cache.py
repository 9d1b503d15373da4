"""What an HTTP cache hit costs, beside two other libraries in the same run: ``python -m benchmarks.http_cache``.

Each candidate serves the same document of about 1 kB through a FastAPI application that is called without a network.
Seconds are processor time of this process, because rounds of several candidates share one machine. Candidates that are
not installed are left out: fastapi-cache2 asks for another redis, so put it beside, on PYTHONPATH.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import close_cache
from agent_service.integrations.fastapi import CachedRoute, cache_response
from benchmarks.timing import print_ratios
from tests.servers.redis import RedisServer

__all__ = ["run"]

CALLS = 400
ROUNDS = 15
PATHS = 50

Get = Callable[[str], Awaitable[None]]


class Document(BaseModel):
    """About 1 kB of JSON."""

    id: str
    scores: list[float]
    note: str


def document(name: str) -> Document:
    return Document(id=name, scores=[each / 7 for each in range(20)], note="x" * 500)


def constant() -> FastAPI:
    """No cache: the same document, made once."""
    app, made = FastAPI(), document("constant")

    @app.get("/documents/{name}")
    async def read(name: str) -> Document:
        return made if name else document(name)

    return app


def ours() -> FastAPI:
    app = FastAPI()
    app.router.route_class = CachedRoute

    @app.get("/documents/{name}", dependencies=[Depends(cache_response(600, tags=["document:{name}"]))])
    async def read(name: str) -> Document:
        return document(name)

    return app


def fastapi_cache2(backend: Any) -> FastAPI:
    library, decorator = import_module("fastapi_cache"), import_module("fastapi_cache.decorator")
    library.FastAPICache.reset()
    library.FastAPICache.init(backend, prefix="bench")
    app = FastAPI()

    async def read(name: str) -> Document:
        return document(name)

    app.get("/documents/{name}")(decorator.cache(expire=600)(read))
    return app


def redis_sdk() -> FastAPI:
    library, app = import_module("redis_fastapi"), FastAPI()
    library.FastAPIRedis(app).lifespan().caching()

    @app.get("/documents/{name}", dependencies=[Depends(library.cache(ttl=600))])
    async def read(name: str) -> Document:
        return document(name)

    return app


def getter(app: FastAPI, seen: set[str]) -> Get:
    """Return a call of the application; the headers of its responses are collected by name."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
            seen.update(f"{name.decode()}: {value.decode()}" for name, value in message["headers"])

    async def get(path: str) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http", "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
            "headers": [
                (b"host", b"api.test"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip"), (b"user-agent", b"bench")
            ],
        }  # fmt: skip
        await app(scope, receive, send)

    return get


async def measure(candidates: dict[str, Get]) -> dict[str, float]:
    """Return the median processor seconds of one hit."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    paths = [f"/documents/{number}" for number in range(PATHS)]
    order = list(candidates.items())
    for get in candidates.values():
        for path in paths * 2:
            await get(path)
    for _ in range(ROUNDS):
        for name, get in order:
            started = time.process_time()
            for number in range(CALLS):
                await get(paths[number % PATHS])
            taken[name].append((time.process_time() - started) / CALLS)
        order.append(order.pop(0))
    return {name: statistics.median(each) for name, each in taken.items()}


async def in_memory() -> dict[str, float]:
    seen: dict[str, set[str]] = {name: set() for name in ("constant", "ours", "fastapi-cache2")}
    candidates = {"constant": getter(constant(), seen["constant"]), "ours": getter(ours(), seen["ours"])}
    if find_spec("fastapi_cache"):
        backend = import_module("fastapi_cache.backends.inmemory").InMemoryBackend()
        candidates["fastapi-cache2"] = getter(fastapi_cache2(backend), seen["fastapi-cache2"])
    seconds = await measure(candidates)
    await close_cache()
    assert any(each.startswith("cache-status: agent-service; hit") for each in seen["ours"])
    assert len(candidates) < 3 or "x-fastapi-cache: HIT" in seen["fastapi-cache2"]
    return seconds


async def on_redis(url: str) -> dict[str, float]:
    os.environ["REDIS_URL"] = url
    reset_settings()
    seen: dict[str, set[str]] = {name: set() for name in ("ours", "fastapi-cache2", "fastapi-redis-sdk")}
    candidates = {"ours": getter(ours(), seen["ours"])}
    async with AsyncExitStack() as stack:
        if find_spec("fastapi_cache"):
            redis = await stack.enter_async_context(Redis.from_url(url, protocol=2))
            backend = import_module("fastapi_cache.backends.redis").RedisBackend(redis)
            candidates["fastapi-cache2"] = getter(fastapi_cache2(backend), seen["fastapi-cache2"])
        if find_spec("redis_fastapi"):
            app = redis_sdk()
            await stack.enter_async_context(app.router.lifespan_context(app))
            candidates["fastapi-redis-sdk"] = getter(app, seen["fastapi-redis-sdk"])
        seconds = await measure(candidates)
        await close_cache()
    assert any(each.startswith("cache-status: agent-service; hit") for each in seen["ours"])
    for name, header in (("fastapi-cache2", "x-fastapi-cache: HIT"), ("fastapi-redis-sdk", "x-redis-cache: HIT")):
        assert name not in candidates or header.lower() in {each.lower() for each in seen[name]}, seen[name]
    return seconds


def run() -> None:
    print_ratios("HTTP cache hit, in memory (processor time)", asyncio.run(in_memory()))
    with RedisServer() as server:
        print_ratios("HTTP cache hit, on Redis (processor time)", asyncio.run(on_redis(server.url)))


if __name__ == "__main__":
    run()
