"""One of several processes that all want the same missing value at the same moment: ``cold_start.py URL CALLERS``."""

import asyncio
import sys

from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient


async def main(url: str, callers: int) -> None:
    client = RedisClient(url, timeout=10)
    outside = RedisClient(url, timeout=10)

    @cached(cache=RedisCache(client), key_prefix="cold", lock="distributed")
    async def load(n: int) -> list[int]:
        await outside.execute("INCR", "loads")
        await asyncio.sleep(0.05)
        return [n]

    await outside.execute("INCR", "ready")
    while not await outside.execute("GET", "go"):
        await asyncio.sleep(0.001)
    assert await asyncio.gather(*(load(7) for _ in range(callers))) == [[7]] * callers
    await client.aclose()
    await outside.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
