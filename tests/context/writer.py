"""A process of its own that changes a store: ``python -m tests.context.writer KIND PLACE FIRST LAST``."""

import asyncio
import sys

from agent_service.context.interface import ContextStore


def open_store(kind: str, place: str) -> ContextStore:
    """Open the store that the parent process opened."""
    # Imported here, because the time to start is what these tests spend most.
    if kind == "file":
        from agent_service.context.files.store import FileContextStore  # noqa: PLC0415

        return FileContextStore(place)
    if kind == "database":
        from agent_service.context.database import DatabaseContextStore  # noqa: PLC0415

        return DatabaseContextStore(url=place)
    if kind == "redis":
        from agent_service.context.redis import RedisContextStore  # noqa: PLC0415

        return RedisContextStore(url=place, timeout=10)
    raise ValueError(kind)


async def update(kind: str, place: str, first: int, last: int) -> None:
    """Set one field in each of several updates of one key, all at once."""
    async with open_store(kind, place) as store:
        await asyncio.gather(*(store.update("shared", {f"field{n}": n}) for n in range(first, last)))


async def save_for_ever(place: str) -> None:
    """Save documents that are recognised by their number, until somebody kills this process."""
    async with open_store("file", place) as store:
        number = 0
        while True:
            number += 1
            await store.set("killed", {"number": number, "padding": [number] * 2_000})
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    kind, place, *numbers = sys.argv[1:]
    asyncio.run(update(kind, place, *map(int, numbers)) if numbers else save_for_ever(place))
