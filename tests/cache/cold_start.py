"""Several processes that all want the same missing value at the same moment: ``cold_start.py URL PROCESSES CALLERS``.

They are forked from one that has imported what they need, and fails when one of them does.
"""

import asyncio
import os
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
        await asyncio.sleep(0.005)
    assert await asyncio.gather(*(load(7) for _ in range(callers))) == [[7]] * callers
    await client.aclose()
    await outside.aclose()


if __name__ == "__main__":
    forked = []
    for _ in range(int(sys.argv[2])):
        pid = os.fork()
        if not pid:
            asyncio.run(main(sys.argv[1], int(sys.argv[3])))
            sys.exit()
        forked.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in forked]
    sys.exit(any(statuses))
