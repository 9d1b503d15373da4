"""Several worker processes, one of which dies while it handles triggers."""

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.trigger import RedisTrigger
from tests.support.forked import together
from tests.support.waiting import until

TENANTS = ["a", "b", "c", "d"]


@pytest.fixture
async def record(client: RedisClient) -> AsyncIterator[RedisClient]:
    """The client; what the workers wrote down is removed afterwards."""
    yield client
    await client.unlink([b"begun", b"ended"])


async def fill_with_other_volatile_keys(client: RedisClient, number: int) -> None:
    for start in range(0, number, 2000):
        commands = [
            ("SET", f"other:{n}", "x" * 50, "PX", random.randint(1_000, 600_000)) for n in range(start, start + 2000)
        ]
        await client.pipeline(commands)


async def race(
    client: RedisClient,
    *,
    others: int,
    triggers: int,
    workers: int,
    seconds: float,
    lease: float,
    p99: float,
) -> None:
    """Let workers fire triggers that become due within ``seconds``, and kill one of them on the way."""
    await fill_with_other_volatile_keys(client, others)
    names = [str(n) for n in range(triggers)]

    async def all_ended() -> bool:
        return int(await client.execute("SCARD", "ended")) == triggers

    async with together(workers, "tests.tenants.trigger_worker", str(lease)) as processes:
        victim, *others_left = processes
        for name in names:
            wait = 0.1 + random.random() * seconds
            await RedisTrigger(random.choice(TENANTS)).set("race", name, ttl_seconds=wait)
        await until(lambda: is_handling(client, victim.pid), seconds + 30)
        victim.kill()
        await until(all_ended, seconds + 10 * lease)
        await asyncio.sleep(1.2 * lease)  # by now every lease that was not given back has run out
        for each in others_left:
            each.send_signal(signal.SIGTERM)
        codes = [await each.wait() for each in processes]
    assert codes == [-signal.SIGKILL] + [0] * len(others_left)

    await check(client, names, victim.pid, p99)


async def is_handling(client: RedisClient, pid: int) -> bool:
    begun = [
        entry.split()[0] for entry in await client.execute("LRANGE", "begun", 0, -1) if int(entry.split()[1]) == pid
    ]
    ended = set(await client.execute("SMEMBERS", "ended"))
    return len(begun) > 5 and any(each not in ended for each in begun)


async def check(client: RedisClient, names: list[str], victim: int, p99: float) -> None:
    handlers: dict[str, list[int]] = defaultdict(list)
    lateness: list[float] = []
    for entry in await client.execute("LRANGE", "begun", 0, -1):
        name, pid, attempt, late = entry.decode().split()
        handlers[name].append(int(pid))
        if attempt == "1":
            lateness.append(float(late))
    ended = {name.decode() for name in await client.execute("SMEMBERS", "ended")}
    repeated = [pids for pids in handlers.values() if len(pids) > 1]

    assert ended == set(names)
    assert all(pids[0] == victim and len(pids) == 2 for pids in repeated)
    assert 1 <= len(repeated) < len(names) / 2
    assert min(lateness) >= 0
    assert len(lateness) > 0.5 * len(names)
    assert sorted(lateness)[int(len(lateness) * 0.99)] < p99
    for tenant in TENANTS:
        assert await RedisTrigger(tenant).pending() == []
        assert await RedisTrigger(tenant).dead() == []


async def test_a_worker_that_is_killed_costs_nothing_but_its_own_repetition(record: RedisClient):
    await race(record, others=2_000, triggers=150, workers=2, seconds=1.0, lease=3, p99=10)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_two_thousand_triggers_beside_two_hundred_thousand_volatile_keys(record: RedisClient):
    await race(record, others=200_000, triggers=2_000, workers=4, seconds=15, lease=2, p99=0.25)
