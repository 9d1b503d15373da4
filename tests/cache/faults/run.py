"""One run: a fault that comes and goes under load, a recovery under load, and what must hold afterwards."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.cache.faults.deadlines import allowed
from tests.cache.faults.faults import Fault
from tests.cache.faults.load import Load
from tests.cache.faults.process import LEASE_SECONDS, Process
from tests.cache.faults.user import HARD_TIMEOUT
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import until

__all__ = ["LONG", "SHORT", "Scale", "run"]


class Scale(NamedTuple):
    """How long a run takes and what its times are, in seconds."""

    seconds: float
    timeout: float
    """REDIS_TIMEOUT."""
    max_staleness: float
    """CACHE_L1_MAX_STALENESS."""
    pause: float
    """Between two calls of one task, on average."""
    long: bool


SHORT = Scale(1.0, timeout=0.2, max_staleness=0.3, pause=0.03, long=False)
LONG = Scale(60.0, timeout=0.5, max_staleness=1.0, pause=0.015, long=True)

_LEASES = "agent_service*%lease:*"
_IMMORTAL = """
local immortal = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then table.insert(immortal, key) end
end
return immortal
"""


async def run(kind: type[Fault], scale: Scale) -> str:
    """Let a fault come and go under load, and check what must hold; gives one line of figures."""
    rng = random.Random(kind.__name__)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(*kind.options))
        proxies = [await stack.enter_async_context(TcpProxy(server.url)) for _ in range(2)]
        fault = kind(server, proxies, rng)
        processes = []
        for proxy in proxies:
            url = proxy.url if kind.on_the_way else server.url
            processes.append(Process(url, timeout=scale.timeout, max_staleness=scale.max_staleness))
            stack.push_async_callback(processes[-1].aclose)
        client = RedisClient(server.url, timeout=scale.timeout)
        stack.push_async_callback(client.aclose)
        outside: RedisCache[Any] = RedisCache(client, namespace="outside")
        load = Load(processes, outside, max_staleness=scale.max_staleness, pause=scale.pause, rng=rng)
        async with load.running():
            await until(lambda: all(each.far.counters.hits and each.outside.counters.l1.hits for each in processes))
            await _harm(fault, scale, processes)
            await until(lambda: all(each.breaker.closed for each in processes), 60)
            await asyncio.sleep(0.3)
        await _recovered(processes)
        told = _tell(kind, scale, load, processes)
        assert not load.meter.faults, "\n".join([told, str(dict(load.meter.faults)), *load.meter.told])
        for name, longest in load.meter.longest.items():
            most = allowed(name, scale.timeout, kind.delay + load.meter.lateness)
            assert longest <= most, f"a {name} took {longest:.3f} s, not {most:.3f} at most; {told}"
        assert load.most_stale <= scale.max_staleness, told
        if kind.is_outage:
            assert any(each.breaker.outages for each in processes), told
        if kind.keeps_data:
            await _check_counters(client, load)
        await until(lambda: not any(any(each.left().values()) for each in processes))
        await _check_keys(server)
    return told


async def _harm(fault: Fault, scale: Scale, processes: Sequence[Process]) -> None:
    lasts = fault.lasts[scale.long]
    end = time.monotonic() + scale.seconds
    while True:
        await fault.inject()
        await asyncio.sleep(lasts)
        if fault.is_outage and lasts > scale.timeout:  # on a busy machine a deadline takes longer
            await until(lambda: any(each.breaker.outages for each in processes), 60)
        await fault.heal()
        if time.monotonic() + lasts > end:
            return
        await asyncio.sleep(fault.rng.uniform(0.5, 1.5) * fault.pause)


async def _recovered(processes: Sequence[Process]) -> None:
    """Let operations come until Redis serves again, as the traffic of a service would."""
    async with asyncio.timeout(60):
        for each in processes:
            while not each.breaker.closed:
                await each.far.exists("probe")
                await asyncio.sleep(0.01)


def _tell(kind: type[Fault], scale: Scale, load: Load, processes: Sequence[Process]) -> str:
    longest = dict(load.meter.longest)
    hard = longest.pop("hard_timeout")
    name = max(longest, key=lambda each: longest[each])
    copies = sum(each.outside.counters.l1.hits for each in processes)
    return (
        f"{kind.__name__}: {load.meter.calls.total()} calls, the longest {longest[name]:.3f} s ({name}; timeout "
        f"{scale.timeout:g} s, loop late by {load.meter.lateness:.3f} s), with a hard timeout of {HARD_TIMEOUT:g} s "
        f"{hard:.3f} s; {'+'.join(str(each.breaker.outages) for each in processes)} outages, "
        f"{sum(each.journal.replayed for each in processes)} replayed; {copies} copies read, the most stale "
        f"{load.most_stale:.3f} s (bound {scale.max_staleness:g} s)"
    )


async def _check_counters(client: RedisClient, load: Load) -> None:
    for shared in (load.far, load.near):
        counters: RedisCache[int] = RedisCache(client, namespace=f"{shared.name}-counters")
        found = await counters.get_many(shared.added)
        assert found == shared.added, f"{found} in {shared.name}, {shared.added} were added"


async def _check_keys(server: RedisServer) -> None:
    """No lease is left, and every key has a TTL."""
    if server.cli("KEYS", _LEASES):
        await asyncio.sleep(LEASE_SECONDS)
    leases, immortal = server.cli("KEYS", _LEASES), server.cli("EVAL", _IMMORTAL, 0)
    assert not leases, leases
    assert not immortal, immortal
