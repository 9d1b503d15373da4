"""A process of its own with a cache before a database.

``python -m tests.context.late_reader ACTION REDIS DATABASE [KIND SECONDS]``

``read`` reads the key ``a``: it says so on its standard output when the database has answered, waits for a line before
it fills the cache, and ends with what it read. ``write`` and ``delete`` change the key. ``die`` writes it and ends
between the database and the cache; ``die-late SECONDS`` takes as long before the database has it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.interface import Document, Key
from agent_service.context.redis import RedisContextStore
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Watched(DatabaseContextStore):
    """A database that waits for a line after it has read, or ends the process after it has written."""

    action = ""

    async def get(self, key: Key) -> Document | None:
        found = await super().get(key)
        if self.action == "read":
            say("read")
            await asyncio.to_thread(sys.stdin.readline)
        return found

    async def set(self, key: Key, value: Mapping[str, Any], **options: Any) -> None:
        if self.action == "die-late":
            say("writing")
            await asyncio.sleep(float(sys.argv[5]))
        await super().set(key, value, **options)
        if self.action.startswith("die"):
            os._exit(0)


async def main(action: str, redis: str, database: str, kind: str = "cache", *_: str) -> None:
    client = RedisClient(redis, timeout=10)
    cache: RedisCache[Any] = RedisCache(client, namespace="contexts", default_ttl=300)
    db = Watched(url=database)
    db.action = action
    before = CacheContextStore(cache) if kind == "cache" else RedisContextStore(client=client)
    store = CacheBackedContextStore(db=db, cache=before, ttl=300)
    if action == "read":
        say(json.dumps(await store.get("a")))
    elif action == "delete":
        await store.delete("a")
    else:
        await store.set("a", {"v": "new"})
    await store.aclose()
    await cache.aclose()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
