"""LangGraph's AsyncPostgresStore and this package's store: put, get and search, by one task and by 64.

``python -m benchmarks.langgraph_store_peers [--rounds N] [--calls N]``

Both work on one server with fsync on, in the same rounds, in turns; each has a pool of up to 15 connections. A round is
so many calls of each task; what is printed is the median of the rounds, and the ratio to ours.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

from langgraph.store.base import BaseStore, PutOp
from langgraph.store.postgres import AsyncPostgresStore

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore
from tests.servers.postgres import running_postgres

ITEMS: Final = 200
"""Items of each task's namespace, which it searches."""
VALUE: Final = {"text": "Ada prefers the window seat, and trains over planes.", "score": 7, "tags": ["travel"]}


@asynccontextmanager
async def theirs(url: str) -> AsyncIterator[BaseStore]:
    """Yield LangGraph's store."""
    plain = url.replace("+asyncpg", "")
    async with AsyncPostgresStore.from_conn_string(plain, pool_config={"min_size": 5, "max_size": 15}) as store:
        await store.setup()
        yield store


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[BaseStore]:
    """Yield this package's store."""
    database = DatabaseManager(url, pool_size=5, max_overflow=10)
    await database.upgrade()
    async with AgentServiceStore(database) as store:
        yield store
    await database.close()


def operations(store: BaseStore) -> dict[str, Callable[[int], Awaitable[Any]]]:
    """Return what is measured; each takes the number of its task."""
    numbers = count()
    return {
        "put, a new item": lambda task: store.aput(("put", str(task)), str(next(numbers)), VALUE),
        "put, over an item": lambda task: store.aput(("over", str(task)), "k", VALUE),
        "get": lambda task: store.aget(("found", str(task)), "7"),
        "search with a filter": lambda task: store.asearch(
            ("found", str(task)), filter={"even": True, "tags": ["travel"]}
        ),
        "search with an order": lambda task: store.asearch(("found", str(task)), filter={"n": {"$gte": 5}}),
    }


async def fill(store: BaseStore) -> None:
    """Store what is found."""
    for task in range(64):
        values = ({**VALUE, "n": n % 10, "even": n % 2 == 0} for n in range(ITEMS))
        await store.abatch([PutOp(("found", str(task)), str(n), value) for n, value in enumerate(values)])


async def seconds(operation: Callable[[int], Awaitable[Any]], tasks: int, calls: int) -> float:
    """Return how long one call takes while so many tasks make them."""

    async def work(task: int) -> None:
        for _ in range(calls):
            await operation(task)

    started = time.perf_counter()
    await asyncio.gather(*map(work, range(tasks)))
    return (time.perf_counter() - started) / (tasks * calls)


async def main(rounds: int, calls: int) -> None:
    """Measure and print."""
    with running_postgres(durable=True) as server:
        urls = [server.create_database(name) for name in ("ours", "theirs")]
        async with AsyncExitStack() as stack:
            stores = {
                "agent_service": await stack.enter_async_context(ours(urls[0])),
                "AsyncPostgresStore": await stack.enter_async_context(theirs(urls[1])),
            }
            for store in stores.values():
                await fill(store)
            measured = {name: operations(store) for name, store in stores.items()}
            for tasks in (1, 64):
                print(f"\n{tasks} {'task' if tasks == 1 else 'tasks'}: calls per second, and ours to theirs")
                for title in measured["agent_service"]:
                    taken: dict[str, list[float]] = {name: [] for name in stores}
                    for number in range(rounds):
                        for name in list(stores)[:: 1 if number % 2 else -1]:
                            each = calls if tasks == 1 else max(calls // 10, 2)
                            taken[name].append(await seconds(measured[name][title], tasks, each))
                    mine, other = (1 / statistics.median(taken[name]) for name in stores)
                    print(f"  {title:<22}{mine:>9,.0f}{other:>9,.0f}{mine / other:>8.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=100)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.calls))
