"""A process that writes items: once, forever, or with callers that are cancelled.

It uses what the store stands on, because LangGraph takes longer to import than the test takes.
"""

import asyncio
import random
import sys
from contextlib import suppress

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.items.joined import JoinedItems
from agent_service.infrastructure.database.items.operations import Put
from agent_service.infrastructure.database.items.transactions import ItemTransactions
from tests.support.forked import wait_for_the_others


async def once(store: JoinedItems, name: str) -> None:
    """Write twenty items that others write too, and twenty of its own, in batches of two in random order."""
    wait_for_the_others()

    async def write(n: int) -> None:
        ops = [Put.of(("shared",), str(each), {"n": n, "pair": [n, n]}) for each in (n, 19 - n)]
        ops.append(Put.of(("own", name), str(n), {"n": n, "pair": [n, n]}))
        random.shuffle(ops)
        await store.run(ops)

    await asyncio.gather(*map(write, range(20)))


async def forever(store: JoinedItems, _name: str) -> None:
    """Write pairs of items, each pair in one batch, and say which are stored."""
    for n in range(1_000_000):
        await store.run([Put.of((side,), str(n), {"n": n}) for side in ("left", "right")])
        print(n, flush=True)  # noqa: T201 - it is what the test reads


async def cancelling(store: JoinedItems, name: str) -> None:
    """Write pairs with tasks that are cancelled at random moments."""
    wait_for_the_others()

    async def write(n: int) -> None:
        value = {"n": random.random(), "by": name}
        await store.run([Put.of((side,), str(n % 50), value) for side in ("left", "right")])

    for _ in range(100):
        tasks = [asyncio.create_task(write(n)) for n in random.sample(range(1000), 20)]
        await asyncio.sleep(random.random() / 100)
        for each in tasks[::2]:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def main(url: str, what: str, name: str) -> None:
    """Do it, and close."""
    database = DatabaseManager(url)
    store = JoinedItems(ItemTransactions(), lambda: database)
    await {"once": once, "forever": forever, "cancelling": cancelling}[what](store, name)
    await store.aclose()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
