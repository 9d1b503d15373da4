"""What the package adds to a FastAPI handler, against one with a constant: ``python -m benchmarks.fastapi_cost``.

Each handler is the only route of an application, which is called without a server, so that nothing but FastAPI's own
cost is beneath. Times are of the processor, so that other processes hardly count.
"""

# ruff: noqa: ARG001 - dependencies are named to be solved

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import FastAPI

from agent_service.infrastructure.cache import ICache, cached
from agent_service.integrations.fastapi import AgentService, DbSession, Tenant, Writer, cache
from benchmarks.timing import print_ratios

CALLS = 300
ROUNDS = 21
PROFILE = {"id": 7, "name": "Ann", "roles": ["a", "b"], "active": True, "score": 1.5}

Handler = Callable[..., Awaitable[dict[str, Any]]]


@cached(ttl=300, key_prefix="profiles")
async def profile(name: str) -> dict[str, Any]:
    return PROFILE | {"name": name}


async def constant(name: str) -> dict[str, Any]:
    return PROFILE


async def decorated(name: str) -> dict[str, Any]:
    return await profile(name)


async def with_writer(name: str, writer: Writer) -> dict[str, Any]:
    return PROFILE


async def with_cache(name: str, profiles: Annotated[ICache[Any], cache("profiles")], tenant: Tenant) -> dict[str, Any]:
    return PROFILE


async def with_session(name: str, db: DbSession) -> dict[str, Any]:
    return PROFILE


HANDLERS: dict[str, Handler] = {
    "a constant": constant,
    "@cached in memory": decorated,
    "a constant, with the writer": with_writer,
    "a constant, with a cache and the tenant": with_cache,
    "a constant, with a database session": with_session,
}


def serving(handler: Handler) -> FastAPI:
    service = AgentService(database="sqlite+aiosqlite://", writer=True)
    app = FastAPI(lifespan=service.lifespan)
    service.install(app)
    app.get("/")(handler)
    return app


async def get(app: FastAPI) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"name=ann"}
    scope |= {"headers": [], "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("test", 80)}
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    assert status == 200


async def measure() -> dict[str, float]:
    """Return processor seconds of one request, by handler: medians of rounds, each with all of them."""
    apps = [(name, serving(handler)) for name, handler in HANDLERS.items()]
    taken: dict[str, list[float]] = {name: [] for name in HANDLERS}
    async with AsyncExitStack() as stack:
        for _, app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
            await get(app)
        for _ in range(ROUNDS):
            for name, app in apps:
                started = time.process_time()
                for _ in range(CALLS):
                    await get(app)
                taken[name].append((time.process_time() - started) / CALLS)
            apps.append(apps.pop(0))
    return {name: statistics.median(each) for name, each in taken.items()}


def run() -> None:
    """Print the table, and what @cached adds to the constant."""
    seconds = asyncio.run(measure())
    print_ratios("A FastAPI handler", seconds)
    added = seconds["@cached in memory"] - seconds["a constant"]
    print(f"\n  @cached in memory adds {added * 1e6:.1f} us to the constant; 5 are permitted")


if __name__ == "__main__":
    run()
