"""Old values, served by choice."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.conformance.adapter import Function, Staleness
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, judge

__all__ = ["stale_by_choice"]

ASKED = Staleness(ttl=1.2, stale_for=30.0, soft_timeout=0.3, hard_timeout=0.6, refresh_at=0.5)
"""Between any two of these moments a busy machine has a third of a second."""
SOON = 2.0
"""Seconds within which an answer counts as not having waited for the load, which waits for ever."""


async def stale_by_choice(stage: Stage) -> Verdict:
    """One function decorated with all of it, and each of the four tried on an entry of its own."""
    sources = [Source() for _ in CHECKS]

    async def read(number: int) -> object:
        return await sources[number].load()

    async with stage.open() as cache:
        best = 0
        for function in cache.stale_served(read, ASKED):
            sources[:] = [Source() for _ in CHECKS]
            checks = (check(function, number, sources[number]) for number, check in enumerate(CHECKS))
            best = max(best, sum(await asyncio.gather(*checks)))
            for each in sources:
                each.gate.set()
            await asyncio.sleep(0.05)  # the loads that were held end
    return judge(best == len(CHECKS), f"{best} of {len(CHECKS)}")


async def _stale_on_error(read: Function, number: int, source: Source) -> bool:
    """The entry expired and the load fails: the old value."""
    await read(number)
    await asyncio.sleep(ASKED.ttl * 1.2)
    source.value = LookupError("nobody")
    return await _answer(read, number) == "old"


async def _soft_timeout(read: Function, number: int, source: Source) -> bool:
    """The entry expired and the load is slow: the old value soon, and the new one once it is there."""
    await read(number)
    await asyncio.sleep(ASKED.ttl * 1.2)
    source.value = "new"
    source.gate.clear()
    at_first = await _answer(read, number)
    source.gate.set()
    return at_first == "old" and await _becomes_new(read, number, source)


async def _hard_timeout(read: Function, number: int, source: Source) -> bool:
    """There is no entry and the load hangs: an error in time."""
    source.gate.clear()
    answer = await _answer(read, number, seconds=ASKED.hard_timeout + SOON)
    return isinstance(answer, TimeoutError) and answer is not _LATE


async def _early_refresh(read: Function, number: int, source: Source) -> bool:
    """Near the end of its time a read gives the entry at once, and starts a load that replaces it."""
    await read(number)
    await asyncio.sleep(ASKED.ttl * 0.6)
    source.value = "new"
    source.gate.clear()
    source.started.clear()
    at_first = await _answer(read, number, seconds=ASKED.soft_timeout)
    with suppress(TimeoutError):
        await asyncio.wait_for(source.started.wait(), ASKED.soft_timeout)
    refreshing = source.started.is_set()
    source.gate.set()
    return at_first == "old" and refreshing and await _becomes_new(read, number, source)


async def _becomes_new(read: Function, number: int, source: Source) -> bool:
    """Whether the value of the second load is served soon, without a third."""
    loop = asyncio.get_running_loop()
    last = loop.time() + SOON
    while await _answer(read, number) != "new" and loop.time() < last:
        await asyncio.sleep(0.01)
    return source.loads == 2 and await _answer(read, number) == "new"


CHECKS: tuple[Callable[[Function, int, Source], Awaitable[bool]], ...] = (
    _stale_on_error,
    _soft_timeout,
    _hard_timeout,
    _early_refresh,
)

_LATE = TimeoutError("no answer in time")


async def _answer(read: Function, number: int, seconds: float = SOON) -> object:
    """What a call gives or raises; ``_LATE`` when it takes longer than it may."""
    call = asyncio.ensure_future(read(number))
    done, _ = await asyncio.wait([call], timeout=seconds)
    if not done:
        call.cancel()
        return _LATE
    return call.exception() or call.result()
