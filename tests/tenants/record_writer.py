"""A process that writes to the records that others write to: ``python -m tests.tenants.record_writer TIMES NUMBER``."""

import asyncio
import sys

from agent_service.infrastructure.redis.factory import close_redis
from tests.support.forked import wait_for_the_others
from tests.tenants.rooms import ROOMS


async def main(times: int, number: int) -> None:
    for make in ROOMS.values():
        room = make("acme", "ann", "main")
        await asyncio.gather(
            *(room.append_to_list("list", f"{number}-{each}") for each in range(times)),
            *(room.increment_field("int") for _ in range(times)),
            *(room.increment_field("float", 0.5) for _ in range(times)),
            *(room.upsert({f"{number}-{each}": each}) for each in range(times)),
        )
    await close_redis()


if __name__ == "__main__":
    wait_for_the_others()
    asyncio.run(main(*map(int, sys.argv[1:])))
