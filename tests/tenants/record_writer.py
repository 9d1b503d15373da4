"""What a process does that writes to the records that others write to; see tests.support.forks."""

import asyncio

from agent_service.infrastructure.redis.factory import close_redis
from tests.tenants.rooms import ROOMS


async def main(number: int, times: int) -> None:
    for make in ROOMS.values():
        room = make("acme", "ann", "main")
        await asyncio.gather(
            *(room.append_to_list("list", f"{number}-{each}") for each in range(times)),
            *(room.increment_field("int") for _ in range(times)),
            *(room.increment_field("float", 0.5) for _ in range(times)),
            *(room.upsert({f"{number}-{each}": each}) for each in range(times)),
        )
    await close_redis()
