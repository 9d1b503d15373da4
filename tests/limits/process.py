"""A process that takes as much as it can: ``process URL TASKS NUMBER`` prints the calls and the weight it took."""

import asyncio
import os
import sys

from agent_service.infrastructure.cache import close_cache
from agent_service.infrastructure.limits import RateLimiter
from tests.support.forked import wait_for_the_others


async def main(tasks: int) -> None:
    calls, weights = RateLimiter("calls", "150/hour", "1000/day"), RateLimiter("weights", "1000/hour")

    async def work(number: int) -> tuple[int, int]:
        taken = [(await calls.take("ann")).taken for _ in range(3)]
        weight = [7, 3, 1][number % 3]
        heavy = [(await weights.take("ann", weight)).taken for _ in range(3)]
        light = [(await weights.take("ann")).taken for _ in range(3)]
        return sum(taken), weight * sum(heavy) + sum(light)

    done = await asyncio.gather(*(work(number) for number in range(tasks)))
    sys.stdout.write(f"{sum(each for each, _ in done)} {sum(each for _, each in done)}\n")
    sys.stdout.flush()
    await close_cache()


if __name__ == "__main__":
    os.environ["REDIS_URL"], os.environ["REDIS_TIMEOUT"] = sys.argv[1], "30"
    wait_for_the_others()
    asyncio.run(main(int(sys.argv[2])))
