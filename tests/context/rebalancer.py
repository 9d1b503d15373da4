"""A process of its own over changed shards, for tests of rebalancing.

``python -m tests.context.rebalancer JOB REDIS_URL SQLITE_FILE [NUMBER]``; JOB is ``rebalance``, ``write`` or ``check``.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from agent_service.context.database import DatabaseContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import RebalanceProgress, ShardManager

ROUNDS = 5
KEYS = 12
"""Keys of each kind that each writer writes."""


def shards(redis_url: str, sqlite: str | Path) -> dict[str, ContextStore]:
    """The shards: the first two are those of before."""
    return {
        "redis one": RedisContextStore(url=redis_url, prefix="one", timeout=10),
        "sqlite one": DatabaseContextStore(db_path=sqlite),
        "redis two": RedisContextStore(url=redis_url, prefix="two", timeout=10),
        "sqlite two": DatabaseContextStore(db_path=f"{sqlite}2"),
    }


def before(stores: Mapping[str, ContextStore]) -> dict[str, ContextStore]:
    """The shards of before a change that adds two and takes one away."""
    return {name: stores[name] for name in ("redis one", "sqlite one")}


def after(stores: Mapping[str, ContextStore]) -> dict[str, ContextStore]:
    """The shards after it."""
    return {name: each for name, each in stores.items() if name != "redis one"}


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def rebalance(store: ShardManager) -> None:
    """Rebalance, telling every step."""

    def step(progress: RebalanceProgress) -> None:
        tell(f"moved {progress.moved}")

    await store.rebalance(step)


async def write(store: ShardManager, number: int) -> None:
    """Update keys that others update as well, delete and set own ones, and check each own write by reading it."""
    tell("began")
    for turn in range(ROUNDS):
        for n in range(KEYS):
            document = await store.update(f"shared {n}", {f"by {number} in {turn}": turn})
            assert document["seed"] == n, document
            assert all(f"by {number} in {each}" in document for each in range(turn)), document
            own = f"own {number} {n}"
            if n % 3 == turn % 3:
                await store.delete(own)
                assert await store.get(own) is None, own
            else:
                await store.set(own, {"turn": turn})
                assert await store.get(own) == {"turn": turn}, own


async def main(job: str, redis_url: str, sqlite: str, number: int) -> None:
    stores = shards(redis_url, sqlite)
    async with ShardManager(after(stores), previous=before(stores)) as store:
        await (rebalance(store) if job == "rebalance" else write(store, number))


if __name__ == "__main__":
    job, redis_url, sqlite, *number = sys.argv[1:]
    asyncio.run(main(job, redis_url, sqlite, *map(int, number or ["0"])))
