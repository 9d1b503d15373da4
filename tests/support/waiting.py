"""Waiting for what somebody else brings about."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest


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
