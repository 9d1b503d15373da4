"""Writes and reads of one key by several stores at once, as by several processes."""

import asyncio
from collections.abc import Sequence

from agent_service.context.interface import ContextStore

__all__ = ["race"]


async def race(db: ContextStore, stores: Sequence[ContextStore], rounds: int) -> None:
    """Let the stores set, update, delete and read a key of ``db`` at once, and compare with ``db`` after each round."""

    async def play(number: int) -> None:
        store = stores[number % len(stores)]
        match number % 5:
            case 0:
                await store.set("a", {"n": number})
            case 1:
                await store.delete("a")
            case 2:
                await store.update("a", {f"f{number % 7}": number})
            case _:
                await store.get("a")

    for round_ in range(rounds):
        await asyncio.gather(*(play(round_ * 7 + n) for n in range(25)))
        truth = await db.get("a")
        assert [await store.get("a") for store in stores] == [truth] * len(stores)
