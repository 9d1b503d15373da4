"""One load for many callers, and what becomes of it when somebody leaves, invalidates or fails."""

import asyncio

from benchmarks.conformance.adapter import Options
from benchmarks.conformance.processes import start_cold
from benchmarks.conformance.stage import PATIENCE, Source, Stage
from benchmarks.conformance.verdict import Verdict, does_not_apply, judge

__all__ = [
    "cancelled_first_caller",
    "cold_start",
    "concurrent_cold_calls",
    "failing_load",
    "key_invalidated_while_loading",
    "tag_invalidated_while_loading",
]


async def concurrent_cold_calls(stage: Stage) -> Verdict:
    """Many callers ask for the same missing value at once."""
    source = Source()
    async with stage.open() as cache:
        read = cache.cached(source.reader())
        await asyncio.gather(*(read(7) for _ in range(stage.sizes.callers)))
    return judge(source.loads == 1, _loads(source.loads))


async def cancelled_first_caller(stage: Stage) -> Verdict:
    """The caller who began the load is cancelled while five others wait for it."""
    source = Source()
    source.gate.clear()
    async with stage.open() as cache:
        read = cache.cached(source.reader())
        first = asyncio.ensure_future(read(7))
        await source.started.wait()
        others = [asyncio.ensure_future(read(7)) for _ in range(5)]
        await asyncio.sleep(0.05)
        if source.loads > 1:
            first.cancel()
            source.gate.set()
            await asyncio.gather(first, *others, return_exceptions=True)
            return does_not_apply("none waits")
        first.cancel()
        await asyncio.sleep(0)
        source.gate.set()
        done, pending = await asyncio.wait(others, timeout=PATIENCE)
        for each in pending:
            each.cancel()
        alive = sum(not each.cancelled() and each.exception() is None for each in done)
        await asyncio.gather(first, *others, return_exceptions=True)
    return judge(alive == len(others), f"{alive} of {len(others)} live")


async def cold_start(stage: Stage) -> Verdict:
    """Processes that start at once and all want the same missing value."""
    processes, callers = stage.sizes.processes, stage.sizes.callers_per_process
    loads = await start_cold(stage.kind.__name__, stage.server.url, processes=processes, callers=callers)
    return judge(loads == 1, f"{loads} of {processes * callers}")


async def key_invalidated_while_loading(stage: Stage) -> Verdict:
    """What was read before an invalidation is stored after it."""
    source = Source()
    source.gate.clear()
    async with stage.open() as cache:
        read = cache.cached(source.reader())
        reading = asyncio.ensure_future(read(7))
        await source.started.wait()
        source.value = "new"
        await cache.invalidate(read, 7)
        source.gate.set()
        await reading
        seen = await read(7)
    return judge(seen == "new", f"{seen} value")


async def tag_invalidated_while_loading(stage: Stage) -> Verdict:
    """The same by a tag."""
    source = Source()
    source.gate.clear()
    async with stage.open() as cache:
        read = cache.cached(source.reader(), Options(tag="user:{n}"))
        reading = asyncio.ensure_future(read(7))
        await source.started.wait()
        source.value = "new"
        await cache.invalidate_tag("user:7")
        source.gate.set()
        await reading
        seen = await read(7)
    return judge(seen == "new", f"{seen} value")


async def failing_load(stage: Stage) -> Verdict:
    """Many callers ask for a value that cannot be loaded; afterwards it can."""
    source = Source(LookupError("nobody"))
    source.gate.clear()
    async with stage.open() as cache:
        read = cache.cached(source.reader())
        callers = asyncio.gather(*(read(7) for _ in range(stage.sizes.failing_callers)), return_exceptions=True)
        await source.started.wait()
        await asyncio.sleep(0.2)  # until all of them have surely come to wait
        source.gate.set()
        results = await callers
        loads = source.loads
        source.value = "new"
        recovered = await read(7) == "new"
    told = all(isinstance(each, LookupError) for each in results)
    return judge(loads == 1 and told and recovered, _loads(loads) if told and recovered else "error lost")


def _loads(number: int) -> str:
    return f"{number} load" if number == 1 else f"{number} loads"
