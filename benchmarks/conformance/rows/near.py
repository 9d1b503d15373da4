"""Memory in front of Redis: whether it hears of changes, and what it does when it cannot."""

import asyncio

from benchmarks.conformance.adapter import Function, Store
from benchmarks.conformance.server import entries_removed
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, judge
from tests.servers.proxy import TcpProxy

__all__ = ["distrusted_after_a_lost_connection", "invalidated_by_pushes"]

BOUND = 1.0
"""Seconds after which a value that was changed elsewhere must not be served."""


async def invalidated_by_pushes(stage: Stage) -> Verdict:
    """Entries that memory holds are removed in Redis by somebody else."""
    source = Source()
    async with stage.open(Store.NEAR) as cache:
        read = cache.cached(source.reader())
        await _settle(read)
        source.value = "new"
        assert entries_removed(stage.server)
        return await _old_for(read)


async def distrusted_after_a_lost_connection(stage: Stage) -> Verdict:
    """The connections are cut and nothing gets through while entries are removed in Redis."""
    source = Source()
    async with TcpProxy(stage.server.url) as proxy, stage.open(Store.NEAR, url=proxy.url) as cache:
        read = cache.cached(source.reader())
        await _settle(read)
        proxy.stall()
        proxy.drop()
        source.value = "new"
        assert entries_removed(stage.server)
        verdict = await _old_for(read)
        proxy.resume()
    return verdict


async def _settle(read: Function) -> None:
    """Load the value, and let what the load itself stirred up pass by."""
    await read(7)
    await asyncio.sleep(0.1)
    await read(7)


async def _old_for(read: Function) -> Verdict:
    """Read until the old value is gone, or has outstayed its time."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while await read(7) == "old":
        if loop.time() - started > BOUND:
            return judge(False, f"old at {BOUND:.0f} s")
        await asyncio.sleep(0.005)
    return judge(True, f"{(loop.time() - started) * 1000:.0f} ms")
