"""A process that publishes what it measures: ``python -m tests.integrations.fleet.worker INTERVAL NUMBER``."""

import asyncio
import sys

from agent_service.infrastructure.cache.factory import get_cache
from agent_service.integrations.fleet import publish_fleet
from tests.support.forked import wait_for_the_others


async def main(interval: float) -> None:
    wait_for_the_others()
    cache = await get_cache("worked")
    await cache.set("a", 1)
    await cache.get("a")
    await publish_fleet(interval)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
