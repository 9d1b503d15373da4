"""A process that serves one cached route: ``process URL CALLERS [NUMBER]`` prints the entity tags it sent."""

import asyncio
import os
import sys

import redis.asyncio
from fastapi import Depends, FastAPI

from agent_service.infrastructure.cache import close_cache
from agent_service.integrations.fastapi import CachedRoute, cache_response
from tests.integrations.fastapi.responses.conftest import client_of
from tests.support.forked import wait_for_the_others

__all__: list[str] = []


async def main(url: str, callers: int) -> None:
    app = FastAPI()
    app.router.route_class = CachedRoute

    @app.get("/", dependencies=[Depends(cache_response(60, lock="distributed"))])
    async def read() -> dict[str, object]:
        if url:
            async with redis.asyncio.Redis.from_url(url, protocol=2) as counter:
                await counter.incr("loads")
            await asyncio.sleep(0.2)
        return {"text": "content", "set": sorted({"a", "b", "c"})}

    async with client_of(app) as client:
        responses = await asyncio.gather(*(client.get("/") for _ in range(callers)))
    await close_cache()
    sys.stdout.write(" ".join(sorted({each.headers["etag"] for each in responses})) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1]:
        os.environ["REDIS_URL"] = sys.argv[1]
        os.environ["REDIS_TIMEOUT"] = "5"
    wait_for_the_others()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
