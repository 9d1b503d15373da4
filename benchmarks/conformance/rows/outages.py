"""A Redis that dies and comes back."""

import asyncio
import contextlib
from typing import Any

from benchmarks.conformance.adapter import Function, Store
from benchmarks.conformance.server import calls_of
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, does_not_apply, judge
from tests.servers.proxy import TcpProxy

__all__ = ["breaker_with_a_probe", "delete_during_an_outage"]

CALLS = 20


async def delete_during_an_outage(stage: Stage) -> Verdict:
    """Redis holds a value and is killed; the value is deleted; Redis comes back with it.

    A delete that raises did not claim to have happened: its caller knows, and the row asks no more of it.
    """
    source = Source()
    async with stage.open(Store.SERVER) as cache:
        read = cache.cached(source.reader())
        await read(7)
        stage.server.cli("SAVE")
        stage.server.kill()
        source.value = "new"
        try:
            await cache.invalidate(read, 7)
        except Exception:  # noqa: BLE001 - whatever it is, the caller was told
            return does_not_apply("raises")
        stage.server.restart()
        seen = await _reads_until_redis_serves(stage, read)
        if not seen:
            return judge(False, "never back")
        seen |= {await read(7) for _ in range(5)}
    return judge("old" not in seen, "comes back" if "old" in seen else "stays away")


async def _reads_until_redis_serves(stage: Stage, read: Function) -> set[Any]:
    """Read on until Redis, just started, is asked again: what was seen, or nothing when it never was."""
    seen = set()
    for _ in range(500):
        seen.add(await read(7))
        if calls_of(stage.server, "get", "mget"):
            return seen
        await asyncio.sleep(0.01)
    return set()


async def breaker_with_a_probe(stage: Stage) -> Verdict:
    """How often a dead Redis is tried.

    Each try is a connection that a proxy in front of the dead server accepts and loses. One after another, calls must
    stop trying; when the wait is over, one of many calls at once must try, alone; and when Redis is back it must serve.
    A connection that listens for changes, if the cache has one, may try to come back meanwhile.
    A cache that hands an outage on to its caller leaves the breaker to him.
    """
    source = Source()
    async with TcpProxy(stage.server.url) as proxy, stage.open(Store.SERVER, url=proxy.url) as cache:
        read = cache.cached(source.reader())
        await read(0)
        stage.server.kill()
        with contextlib.suppress(Exception):
            await read(0)  # notices
        tried = proxy.accepted
        try:
            for number in range(CALLS):
                await read(number)
        except Exception:  # noqa: BLE001 - whatever it is, it reached the caller
            return does_not_apply("raises")
        one_by_one = proxy.accepted - tried
        if one_by_one >= CALLS:
            return judge(False, f"{one_by_one} tries")
        alone = await _tries_of_a_crowd(proxy, read)
        stage.server.restart()
        served = await _served_again(stage, read)
    alone_but_for_listening = 1 <= alone <= 1 + cache.listening
    return judge(alone_but_for_listening and served, f"{alone} at a time" if served else "never back")


async def _tries_of_a_crowd(proxy: TcpProxy, read: Function) -> int:
    """Let crowds call until somebody tries; how many of that crowd did."""
    for _ in range(200):
        before = proxy.accepted
        await asyncio.gather(*(read(number) for number in range(CALLS)))
        await asyncio.sleep(0.02)
        if proxy.accepted > before:
            return proxy.accepted - before
    return 0


async def _served_again(stage: Stage, read: Function) -> bool:
    for number in range(500):
        await read(number)
        if calls_of(stage.server, "get", "mget"):
            return True
        await asyncio.sleep(0.01)
    return False
