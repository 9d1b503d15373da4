"""Memory in front of Redis: whether it hears of changes, and what it does when it cannot."""

import asyncio
import math
from collections.abc import Callable

from benchmarks.conformance.adapter import Function, Store
from benchmarks.conformance.server import connections_killed, entries_removed
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, judge
from tests.servers.proxy import TcpProxy

__all__ = ["distrusted_after_a_lost_connection", "invalidated_by_pushes"]

BOUND = 2.0
"""Seconds after which a value that was changed elsewhere must not be served."""


async def invalidated_by_pushes(stage: Stage) -> Verdict:
    """Entries that memory holds are removed in Redis by somebody else."""
    async with TcpProxy(stage.server.url) as proxy:
        return _judge(await _seconds_old_is_served(stage, proxy, lambda: None))


async def distrusted_after_a_lost_connection(stage: Stage) -> Verdict:
    """Entries are removed in Redis as soon as the connections were cut: once with Redis in reach, once out of it."""

    def cut_off() -> None:
        proxy.stall()
        proxy.drop()

    async with TcpProxy(stage.server.url) as proxy:
        in_reach = await _seconds_old_is_served(stage, proxy, lambda: connections_killed(stage.server))
        out_of_reach = await _seconds_old_is_served(stage, proxy, cut_off)
    return _judge(max(in_reach, out_of_reach))


def _judge(seconds: float) -> Verdict:
    return judge(seconds <= BOUND, f"{seconds * 1000:.0f} ms" if seconds <= BOUND else f"old at {BOUND:.0f} s")


async def _seconds_old_is_served(stage: Stage, proxy: TcpProxy, cut: Callable[[], None]) -> float:
    """How long an old value is served after it was removed in Redis; infinity: for ever, or again when all is well.

    An error is no old value: without Redis a cache may have nothing else to give.
    """
    loop = asyncio.get_running_loop()
    source = Source()
    async with stage.open(Store.NEAR, url=proxy.url) as cache:
        read = cache.cached(source.reader())
        await _settle(read)
        source.value = "new"
        cut()
        assert entries_removed(stage.server)
        started = loop.time()
        served = 0.0
        while served <= BOUND and await _answer(read) == "old":
            served = loop.time() - started
            await asyncio.sleep(0.005)
        proxy.resume()
        afterwards = await _first_value(read)
    return served if afterwards == "new" else math.inf


async def _settle(read: Function) -> None:
    """Load the value, and let what the load itself stirred up pass by."""
    await read(7)
    await asyncio.sleep(0.1)
    await read(7)


async def _answer(read: Function) -> object:
    try:
        return await read(7)
    except Exception as exc:  # noqa: BLE001 - an answer of its own kind
        return exc


async def _first_value(read: Function) -> object:
    """Read until there is a value."""
    for _ in range(100):
        answer = await _answer(read)
        if not isinstance(answer, Exception):
            return answer
        await asyncio.sleep(0.02)
    return None
