"""Waiting for what somebody else brings about."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

TICK: Final = 0.01


class Ticks:
    """Time as this process had it: a machine that is too busy to give it a turn lets none pass."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def seconds(self) -> float:
        """Seconds, never more than those of a clock."""
        return self._count * TICK

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._count += 1


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticks]:
    """Measure how long a block takes, for an upper bound that does not hang on the speed of the machine."""
    ticks = Ticks()
    task = asyncio.create_task(ticks.run())
    try:
        yield ticks
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """
    Wait until a condition holds.

    :param condition: plain, or a coroutine function.
    :param seconds: when to give up; no sign of anything but a fault, so it may be long.
    """
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if inspect.isawaitable(met) else met:
                return
            await asyncio.sleep(0.005)


async def ended(left: Callable[[], set[Any]], what: str) -> None:
    """Return what is just ending a moment, and fail for what is not."""
    for _ in range(1000):
        if not left():
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{what} left behind: {left()}")
