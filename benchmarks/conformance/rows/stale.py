"""Old values, served by choice.

What does not hold is tried again with all times longer, because a busy machine may be slow.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.conformance.adapter import Function, Staleness
from benchmarks.conformance.stage import Source, Stage
from benchmarks.conformance.verdict import Verdict, judge

__all__ = ["stale_by_choice"]

SCALES = (1, 8)


class Times(NamedTuple):
    """All times of one attempt."""

    asked: Staleness
    soon: float
    """Seconds within which an answer counts as not having waited for the load."""
    settled: float
    """Seconds after which a load that may end has ended."""


def times(scale: float) -> Times:
    """Return times that are ``scale`` times the shortest."""
    asked = Staleness(
        ttl=0.3 * scale, stale_for=10.0 * scale, soft_timeout=0.05 * scale, hard_timeout=0.2 * scale, refresh_at=0.5
    )
    return Times(asked, 0.25 * scale, 0.05 * scale)


async def stale_by_choice(stage: Stage) -> Verdict:
    """One function decorated with all of it, and each of the four tried on an entry of its own."""
    best = 0
    for scale in SCALES:
        if best < len(CHECKS):
            best = max(best, await _attempt(stage, times(scale)))
    return judge(best == len(CHECKS), f"{best} of {len(CHECKS)}")


async def _attempt(stage: Stage, time: Times) -> int:
    """Return how many of the checks held."""
    sources = [Source() for _ in CHECKS]

    async def read(number: int) -> object:
        return await sources[number].load()

    async with stage.open() as cache:
        best = 0
        for function in cache.stale_served(read, time.asked):
            sources[:] = [Source() for _ in CHECKS]
            checks = (check(function, number, sources[number], time) for number, check in enumerate(CHECKS))
            best = max(best, sum(await asyncio.gather(*checks)))
            for each in sources:
                each.gate.set()
            await asyncio.sleep(time.settled)
    return best


async def _stale_on_error(read: Function, number: int, source: Source, time: Times) -> bool:
    """The entry expired and the load fails: the old value."""
    await read(number)
    await asyncio.sleep(time.asked.ttl * 1.2)
    source.value = LookupError("nobody")
    return await _answer(read, number, time.soon) == "old"


async def _soft_timeout(read: Function, number: int, source: Source, time: Times) -> bool:
    """The entry expired and the load is slow: the old value soon, and the new one once it is there."""
    await read(number)
    await asyncio.sleep(time.asked.ttl * 1.2)
    source.value = "new"
    source.gate.clear()
    at_first = await _answer(read, number, time.soon)
    source.gate.set()
    await asyncio.sleep(time.settled)
    return at_first == "old" and source.loads == 2 and await _answer(read, number, time.soon) == "new"


async def _hard_timeout(read: Function, number: int, source: Source, time: Times) -> bool:
    """There is no entry and the load hangs: an error in time."""
    source.gate.clear()
    answer = await _answer(read, number, time.asked.hard_timeout + time.soon)
    return isinstance(answer, TimeoutError) and answer is not _LATE


async def _early_refresh(read: Function, number: int, source: Source, time: Times) -> bool:
    """Near the end of its time a read gives the entry at once, and starts a load that replaces it."""
    await read(number)
    await asyncio.sleep(time.asked.ttl * 0.7)
    source.value = "new"
    source.gate.clear()
    at_first = await _answer(read, number, time.asked.soft_timeout)
    await asyncio.sleep(time.settled / 2)
    loads = source.loads
    source.gate.set()
    await asyncio.sleep(time.settled)
    return at_first == "old" and loads == 2 and await _answer(read, number, time.soon) == "new"


CHECKS: tuple[Callable[[Function, int, Source, Times], Awaitable[bool]], ...] = (
    _stale_on_error,
    _soft_timeout,
    _hard_timeout,
    _early_refresh,
)

_LATE = TimeoutError("no answer in time")


async def _answer(read: Function, number: int, seconds: float) -> object:
    """What a call gives or raises; ``_LATE`` when it takes longer than it may."""
    call = asyncio.ensure_future(read(number))
    done, _ = await asyncio.wait([call], timeout=seconds)
    if not done:
        call.cancel()
        return _LATE
    return call.exception() or call.result()
